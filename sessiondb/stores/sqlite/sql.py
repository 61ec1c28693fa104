"""Pieces of SQL that writing and reading share."""

from __future__ import annotations

from collections.abc import Iterable

# State rows as one JSON object; values are kept to the letter.
OBJECT = "'{' || coalesce(group_concat(json_quote(state_key) || ':' || state_value), '') || '}'"


def object_of(condition: str) -> str:
    """Returns SQL for the state rows that meet a condition, as one JSON object."""
    return f"(SELECT {OBJECT} FROM adk_state WHERE {condition})"


def names(columns: Iterable[str], table: str = "") -> str:
    """Returns a list of columns, each of a table if one is given."""
    return ", ".join(f"{table}.{column}" if table else column for column in columns)


def equal(columns: Iterable[str], table: str) -> str:
    """Returns the condition that columns are equal to those of a table; ``""`` for parameters of their names."""
    return " AND ".join(f"{column} = {f'{table}.' if table else ':'}{column}" for column in columns)
