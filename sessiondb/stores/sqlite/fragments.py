"""Pieces of SQL that writing and reading share."""

from __future__ import annotations

# State rows as one JSON object; values are kept to the letter.
OBJECT = "'{' || coalesce(group_concat(json_quote(state_key) || ':' || state_value), '') || '}'"


def object_of(condition: str) -> str:
    """Returns SQL for the state rows that meet a condition, as one JSON object."""
    return f"(SELECT {OBJECT} FROM adk_state WHERE {condition})"
