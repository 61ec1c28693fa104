"""``sessiondb usage``: what conversations have used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from sessiondb.model.usage import COUNTED, GROUPS, USAGE_BY, UsageBy

from .database import among, file_argument, selection_options, session_option
from .output import json_lines_option, or_say_so, print_json_line, print_rows

if TYPE_CHECKING:
    from sessiondb.location import Database
    from sessiondb.model.usage import UsageRow

_EPILOG = """\b
Examples:
  sessiondb usage
  sessiondb usage --app my_app --since 2026-01-01 --by model
  sessiondb usage path/to/sessions.sqlite3 --by user --json | jq .total_tokens
"""

_DAYS = 31
"""So many bars the chart has, at most."""

_BAR_WIDTH = 40

_HEADS = {
    "app_name": "APP",
    "user_id": "USER",
    "session_id": "SESSION",
    "invocation_id": "INVOCATION",
    "prompt_tokens": "PROMPT",
    "candidates_tokens": "CANDIDATES",
    "cached_tokens": "CACHED",
    "thoughts_tokens": "THOUGHTS",
    "total_tokens": "TOKENS",
    "interruptions": "INTERRUPTED",
}

_moment = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


@click.command("usage", epilog=_EPILOG)
@file_argument
@selection_options
@session_option
@click.option("--since", type=_moment, metavar="TIME", help="Only what is from then on: 2026-01-31, or with T12:00:00.")
@click.option("--until", type=_moment, metavar="TIME", help="Only what is before then. Times are UTC.")
@click.option("--by", type=click.Choice(USAGE_BY), default="day", show_default=True, help="What a row is of.")
@json_lines_option
def command(
    *,
    file: Database,
    app_name: str | None,
    user_id: str | None,
    session_id: str | None,
    since: datetime | None,
    until: datetime | None,
    by: UsageBy,
    as_json: bool,
) -> None:
    """Show what the conversations in FILE have used: turns, events, tokens, tool calls, errors.

    Tokens are those that models have reported. For a person, the tools and a chart of the last days follow. The file is
    only read. Without FILE: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself.
    """
    from sessiondb import stores
    from sessiondb.model.queries import GetUsage
    from sessiondb.model.records import Selection

    query = GetUsage(Selection(app_name, user_id, session_id), _seconds(since), _seconds(until), by)
    with stores.open_reader(file) as reader, reader.snapshot():
        rows = list(or_say_so(reader.ask(query), f"event{among(app_name, user_id, session_id)}"))
        if as_json:
            for row in rows:
                print_json_line(_as_dict(row, by))
            return
        days = rows
        if by != "day" and rows:
            query.by = "day"
            days = reader.ask(query)
    if rows:
        _print_table([*GROUPS[by]], rows)
        _print_tools(rows)
        _print_chart(days[-_DAYS:])


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.replace(tzinfo=UTC).timestamp()


def _as_dict(row: UsageRow, by: UsageBy) -> dict[str, Any]:
    fields = asdict(row)
    return {name: fields[name] for name in (*GROUPS[by], "turns", "events", "tool_calls", *COUNTED)}


def _print_table(group: list[str], rows: Sequence[UsageRow]) -> None:
    header = [_HEADS.get(name, name.upper()) for name in (*group, *COUNTED)]
    named = [["-" if (value := getattr(row, name)) is None else value for name in group] for row in rows]
    numbers = [[f"{getattr(row, name):,}" for name in COUNTED] for row in rows]
    for place, head in enumerate(header[len(group) :]):
        width = max(len(head), *(len(row[place]) for row in numbers))
        header[len(group) + place] = head.rjust(width)
        for row in numbers:
            row[place] = row[place].rjust(width)
    print_rows(header, [[*names, *counts] for names, counts in zip(named, numbers, strict=True)], time_first=False)


def _print_tools(rows: Sequence[UsageRow]) -> None:
    calls: Counter[str] = Counter()
    for row in rows:
        calls.update(row.tool_calls)
    if calls:
        click.echo()
        in_order = sorted(calls.items(), key=lambda item: (-item[1], item[0]))
        print_rows(("TOOL", "CALLS"), [(name or "-", f"{count:,}") for name, count in in_order], time_first=False)


def _print_chart(days: Sequence[UsageRow]) -> None:
    from rich.console import Console
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    what = "total_tokens" if any(day.total_tokens for day in days) else "events"
    most = max(getattr(day, what) for day in days)
    chart = Table.grid(padding=(0, 2))
    chart.add_column(no_wrap=True)
    chart.add_column(width=_BAR_WIDTH)
    chart.add_column(no_wrap=True, justify="right")
    chart.add_row("DAY", "", _HEADS.get(what, "EVENTS"))
    for day in days:
        count: int = getattr(day, what)
        chart.add_row(day.day, ProgressBar(total=most, completed=count, width=_BAR_WIDTH), f"{count:,}")
    click.echo()
    # A terminal that is narrower takes the bar in: days and numbers stay whole.
    Console(highlight=False).print(chart)
