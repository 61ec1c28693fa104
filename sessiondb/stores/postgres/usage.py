"""SQL that sums up what conversations have used."""

from __future__ import annotations

from sessiondb.model.usage import COUNTED, GROUPS, MAX_TOKEN_COUNT, TOKEN_COUNTS, UsageBy

_COLUMN = {
    "author": 'author COLLATE "C"',
    "invocation_id": 'invocation_id COLLATE "C"',
    "day": 'substr(timestamp, 1, 10) COLLATE "C"',
    "model": "(fields ->> 'model_version') COLLATE \"C\"",
}
# A change of state from outside has the author `user` and no content.
_TURN = """
    CASE WHEN (content IS NOT NULL OR author <> 'user') AND invocation_id <> ''
         THEN (incarnation || ':' || invocation_id) COLLATE "C" END
"""


# Tokens are spent once: what a fork has taken over counts where it was said. Forks are few, and found at once.
NOT_COPIED = """
    (incarnation NOT IN (SELECT incarnation FROM @adk_sessions WHERE forked_seq IS NOT NULL)
     OR seq > (SELECT forked_seq FROM @adk_sessions AS s WHERE s.app_name = e.app_name
                  AND s.user_id = e.user_id AND s.session_id = e.session_id))
"""
"""The condition that an event was said in its own session."""


def _json(column: str) -> str:
    """Returns SQL for the JSON in a column. The server's type has no NUL, which texts in it may hold: it becomes U+FFFD."""
    return rf"replace({column}, '\u0000', '\ufffd')::jsonb"


def usage_statement(by: UsageBy, where: str) -> str:
    """Returns SQL for the numbers of each group, followed by its tools; ``where`` chooses the events."""
    group = GROUPS[by]
    grouped = ", ".join(group)
    of_event = ", ".join(f"{_COLUMN.get(name, name)} AS {name}" for name in group)
    members = ", ".join(f"usage -> '{member}' AS {name}" for name, member in TOKEN_COUNTS.items())
    sums = {
        "events": "count(*)",
        **{name: f"sum({_token_count(name)})" for name in TOKEN_COUNTS},
        "errors": "count(error_code)",
        "interruptions": "count(*) FILTER (WHERE interrupted = 'true'::jsonb)",
    }
    of_turns = ", ".join(f"{counted} AS {name}" for name, counted in sums.items())
    totals = {"turns": "count(turn)", **{name: f"coalesce(sum({name}), 0)" for name in sums}}
    nothing = ", NULL" * (len(COUNTED) - 1)
    # Without the OFFSET the JSON would be parsed anew at each place where it is used. And turns are groups of their own first:
    # to count different ones, the server would sort all events by them.
    return f"""
        SELECT {grouped}, NULL AS tool, {", ".join(totals[name] for name in COUNTED)}
          FROM (SELECT {grouped}, turn, {of_turns}
                  FROM (SELECT {of_event}, {_TURN} AS turn, {members}, fields ->> 'error_code' AS error_code,
                               fields -> 'interrupted' AS interrupted
                          FROM @adk_events AS e
                         CROSS JOIN LATERAL (SELECT {_json("extra")} AS fields OFFSET 0) AS parsed
                         CROSS JOIN LATERAL (SELECT fields -> 'usage_metadata' AS usage OFFSET 0) AS reported
                         {where}) AS counted
                 GROUP BY {grouped}, turn) AS of_turns
         GROUP BY {grouped}
        UNION ALL
        SELECT {grouped}, tool, count(*){nothing}
          FROM (SELECT {of_event}, coalesce(part -> 'function_call' ->> 'name', '') COLLATE "C" AS tool
                  FROM @adk_events AS e
                 CROSS JOIN LATERAL (SELECT {_json("extra") if by == "model" else "NULL"} AS fields OFFSET 0) AS parsed
                 CROSS JOIN LATERAL jsonb_array_elements({_json("content")} -> 'parts') AS part
                 {where} {"AND" if where else "WHERE"} strpos(content, '"function_call"') > 0 AND part ? 'function_call'
               ) AS called
         GROUP BY {grouped}, tool
         ORDER BY {", ".join(f"{place} NULLS FIRST" for place in range(1, len(group) + 2))}
    """


def _token_count(name: str) -> str:
    # Numbers are compared with numbers: a value of another kind is not between two of them.
    return f"CASE WHEN {name} BETWEEN '0'::jsonb AND '{MAX_TOKEN_COUNT}'::jsonb THEN {name}::bigint END"
