"""SQL that sums up what conversations have used."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any

from sessiondb.model.queries import GetUsage
from sessiondb.model.usage import COUNTED, GROUPS, MAX_TOKEN_COUNT, TOKEN_COUNTS, UsageBy, UsageRow, usage_rows
from sessiondb.stores.sqlite.sql import names

# JSON that is none was edited outside sessiondb; what it may have held counts as nothing.
_FIELDS = "CASE WHEN json_valid(extra) THEN extra END"
# A change of state from outside has the author `user` and no content.
_TURN = """
    CASE WHEN (content IS NOT NULL OR author <> 'user') AND invocation_id <> '' THEN incarnation || ':' || invocation_id END
"""
# Texts are taken out of JSON as JSON: of one with a NUL, SQLite would give what stands before it.
_COLUMN = {"model": "fields -> '$.model_version'", "day": "substr(timestamp, 1, 10)"}


# Tokens are spent once: what a fork has taken over counts where it was said. Forks are few, and found at once.
NOT_COPIED = """
    (incarnation NOT IN (SELECT incarnation FROM adk_sessions WHERE forked_seq IS NOT NULL)
     OR seq > (SELECT forked_seq FROM adk_sessions AS s WHERE s.app_name = adk_events.app_name
                  AND s.user_id = adk_events.user_id AND s.session_id = adk_events.session_id))
"""
"""The condition that an event was said in its own session."""


def _token_count(name: str) -> str:
    return f"CASE WHEN typeof({name}) = 'integer' AND {name} BETWEEN 0 AND {MAX_TOKEN_COUNT} THEN {name} END"


def _statement(by: UsageBy, where: str) -> str:
    """Returns SQL for the numbers of each group, followed by its tools."""
    group = GROUPS[by]
    grouped = names(group)
    of_event = [f"{_COLUMN.get(name, name)} AS {name}" for name in group]
    columns = "app_name, user_id, session_id, author, timestamp, invocation_id"
    members = ", ".join(f"fields ->> '$.usage_metadata.{member}' AS {name}" for name, member in TOKEN_COUNTS.items())
    sums = {
        "turns": "count(DISTINCT turn)",
        "events": "count(*)",
        **{name: f"coalesce(sum({_token_count(name)}), 0)" for name in TOKEN_COUNTS},
        "errors": "coalesce(sum(error_code <> 'null'), 0)",
        "interruptions": "coalesce(sum(interrupted = 'true'), 0)",
    }
    nothing = ", NULL" * (len(COUNTED) - 1)
    # SQLite would else put an expression into each place where it is used, and evaluate it there again: a subquery with a
    # LIMIT is left as it is.
    return f"""
        SELECT {grouped}, NULL AS tool, {", ".join(sums[name] for name in COUNTED)}
          FROM (SELECT {", ".join(of_event)}, turn, {members},
                       fields -> '$.error_code' AS error_code, fields -> '$.interrupted' AS interrupted
                  FROM (SELECT {columns}, {_TURN} AS turn, {_FIELDS} AS fields FROM adk_events {where} LIMIT -1)
                 LIMIT -1)
         GROUP BY {grouped}
        UNION ALL
        SELECT {grouped}, tool, count(*){nothing}
          FROM (SELECT {", ".join(of_event)}, coalesce(part.value -> '$.function_call.name', '""') AS tool
                  FROM (SELECT {columns}, content, {_FIELDS} AS fields FROM adk_events
                         {where} {"AND" if where else "WHERE"} instr(content, '"function_call"') AND json_valid(content)
                         LIMIT -1),
                       json_each(content, '$.parts') AS part
                 WHERE CASE part.type WHEN 'object' THEN part.value -> '$.function_call' IS NOT NULL END)
         GROUP BY {grouped}, tool
         ORDER BY {names(map(str, range(1, len(group) + 2)))}
    """


def get_usage(connection: sqlite3.Connection, query: GetUsage, where: str) -> list[UsageRow]:
    """Answers a query; ``where`` chooses the events by the parameters of its names.

    Raises:
        sqlite3.Error: If SQLite refuses.
    """
    parameters = {**query.selection._asdict(), "since": query.since, "until": query.until}
    found = connection.execute(_statement(query.by, where), parameters)
    return usage_rows(query.by, _decoded(found, query.by))


def _decoded(found: Iterator[tuple[Any, ...]], by: UsageBy) -> Iterator[tuple[Any, ...]]:
    of_json = (0, 1) if by == "model" else (len(GROUPS[by]),)
    for row in found:
        values = list(row)
        for index in of_json:
            values[index] = _text(values[index])
        yield tuple(values)


def _text(of_json: str | None) -> str | None:
    value = None if of_json is None else json.loads(of_json)
    return value if value is None or isinstance(value, str) else of_json
