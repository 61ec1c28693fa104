"""Pieces of SQL that queries share."""

from __future__ import annotations

from sessiondb.model import columns
from sessiondb.model.records import Selection

KEY = ", ".join(columns.SESSION_KEY)
EVENT_ROW = ", ".join(columns.EVENT_ROW)
OWNER = {
    "SESSION": "user_id = {0}user_id{1} AND session_id = {0}session_id{1}",
    "USER": "user_id = {0}user_id{1} AND session_id IS NULL",
    "APP": "user_id IS NULL AND session_id IS NULL",
}


def state_of(scope: str, before: str = "%(", after: str = ")s") -> str:
    """Returns SQL for the state of a scope as one JSON object, of an owner in parameters or columns."""
    return (
        "(SELECT '{' || coalesce(string_agg(to_json(state_key) || ':' || state_value, ','), '') || '}' FROM @adk_state AS t"
        f" WHERE t.app_name = {before}app_name{after} AND {OWNER[scope].format(before, after)} AND t.scope = '{scope}')"
    )


HEAD_COLUMNS = "incarnation, revision, last_seq, log_epoch, update_time"
THIS_SESSION = "app_name = %(app_name)s AND user_id = %(user_id)s AND session_id = %(session_id)s"

CHANGES_STATE = "NOT starts_with(actions, '{\"state_delta\":{}')"
"""The condition that an event has a state delta: what is written without one begins like that."""


def where_clause(selection: Selection, *also: str) -> str:
    """Returns the condition for rows of a selection, which is given as parameters, with others that hold as well."""
    conditions = [f"{column} = %({column})s" for column, value in selection._asdict().items() if value is not None]
    conditions += filter(None, also)
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""
