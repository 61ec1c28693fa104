"""Pieces of SQL that writing and reading share."""

from __future__ import annotations

from collections.abc import Iterable

from sessiondb.model import columns
from sessiondb.model.columns import SESSION_KEY
from sessiondb.model.records import Selection

OWNERS = {"SESSION": SESSION_KEY, "USER": SESSION_KEY[:2], "APP": SESSION_KEY[:1]}
"""Which columns of ``adk_state`` say whose state a row of a scope is; the others are NULL."""

# State rows as one JSON object; values are kept to the letter.
OBJECT = "'{' || coalesce(group_concat(json_quote(state_key) || ':' || state_value), '') || '}'"


LAST_ID = "(SELECT coalesce(max(id), 0) FROM adk_events)"
"""SQL for the id of the last event of all logs."""


def names(columns: Iterable[str], table: str = "") -> str:
    """Returns a list of columns, each of a table if one is given."""
    return ", ".join(f"{table}.{column}" if table else column for column in columns)


def equal(columns: Iterable[str], table: str) -> str:
    """Returns the condition that columns are equal to those of a table; ``""`` for parameters of their names."""
    return " AND ".join(f"{column} = {f'{table}.' if table else ':'}{column}" for column in columns)


def of_scope(scope: str, table: str) -> str:
    """Returns the condition for the state rows of a scope whose owner is in a table, or in parameters, as in :func:`equal`."""
    return f"{equal(OWNERS[scope], table)} AND scope = '{scope}'"


def state_of(scope: str, table: str) -> str:
    """Returns SQL for the rows that :func:`of_scope` means, as one JSON object."""
    return f"(SELECT {OBJECT} FROM adk_state WHERE {of_scope(scope, table)})"


KEY = names(SESSION_KEY)
EVENT_ROW = names(columns.EVENT_ROW)
HEAD_COLUMNS = "incarnation, revision, last_seq, log_epoch, update_time"
THIS_SESSION = equal(SESSION_KEY, "")
"""The condition that a row is of the session that the parameters name."""

HOLDS_KEY = (
    "json_valid(actions) AND EXISTS (SELECT 1 FROM json_each(actions, '$.state_delta') AS changed"
    " WHERE changed.key = :state_key)"
)
"""The condition that the state delta of an event has a key, which a parameter names."""

CHANGES_STATE = "actions NOT LIKE '{\"state_delta\":{}%'"
"""The condition that an event has a state delta: what is written without one begins like that."""


def where_clause(selection: Selection, *also: str) -> str:
    """Returns the condition for rows of a selection, which is given as parameters, with others that hold as well."""
    conditions = [f"{column} = :{column}" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
