"""The demonstration's results as tables for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from .contents import Contents, EventRow
from .conversation import Part
from .timing import Timing

_MAX_WIDTH = 10_000


def show_conversation(console: Console, heading: str, part: Part) -> None:
    """Print the turns that one process held."""
    console.rule(f"{heading} (process {part.pid})", align="left")
    lines = Table.grid(padding=(0, 2))
    lines.add_column(style="dim")
    lines.add_column()
    session_id = None
    for turn in part.turns:
        if turn.session_id != session_id:
            session_id = turn.session_id
            lines.add_row("session", session_id, style="dim")
        lines.add_row("user", turn.message)
        for tool in turn.tool_calls:
            lines.add_row("", f"calls {tool}", style="dim")
        lines.add_row("analyst", turn.reply, style="bold")
    for key, value in part.outside_changes.items():
        lines.add_row("outside", f"update_keys sets {key} to {_compact(value)}", style="dim")
    console.print(lines)
    fragments = sum(turn.partial_events for turn in part.turns)
    console.print(f"{fragments} fragments were streamed; the log holds whole events only.\n", style="dim")


def show_contents(console: Console, contents: Contents) -> None:
    """Print sessions, events, state and the audit trail of one key."""
    sessions = (
        (row.session_id, _seconds(row.created_at), _seconds(row.updated_at), str(row.events))
        for row in contents.sessions
    )
    _print_table(console, _table("Sessions", ("session", "created (UTC)", "updated (UTC)", "events"), sessions))
    totals = contents.totals
    console.print(
        f"The whole database: {totals['sessions']} sessions, {totals['events']} events, {totals['state_keys']} state keys, "
        f"{totals['db_size_mb']:.2f} MB\n",
        style="dim",
    )
    events = (
        (str(row.seq), _clock(row.time), row.author, str(row.pid or "(outside)"), _what(row)) for row in contents.events
    )
    _print_table(console, _table("Events", ("seq", "time (UTC)", "author", "process", "what"), events, wraps="what"))
    state = ((row.scope, row.key, _compact(row.value)) for row in contents.state)
    _print_table(console, _table("State", ("scope", "key", "value"), state, wraps="value"))
    trail = ((str(row.seq), _clock(row.time), row.author, _compact(row.value)) for row in contents.audit_trail)
    columns = ("seq", "time (UTC)", "author", "value")
    _print_table(console, _table(f"Audit trail of {contents.audited_key}", columns, trail, wraps="value"))


def show_timings(console: Console, timings: Sequence[Timing]) -> None:
    """Print the medians of both services side by side."""
    times = (
        (row.step, str(row.repeats), f"{row.sessiondb_ms:.3f} ms", f"{row.in_memory_ms:.3f} ms", f"{row.ratio:.2f}")
        for row in timings
    )
    table = _table("Median times", ("step", "repeats", "sessiondb", "in memory", "ratio"), times, wraps="step")
    for column in table.columns[1:]:
        column.justify = "right"
    _print_table(console, table)
    console.print(
        "One client at a time. sessiondb: every commit is synced to disk before the answer. "
        "In memory: ADK's InMemorySessionService, which forgets all when the process ends.\n",
        style="dim",
    )


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, wraps: str | None = None) -> Table:
    """Returns a table, of which one column may be wrapped between its words."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    filled = list(rows)
    for heading, *cells in zip(columns, *filled, strict=True):
        unbroken = " ".join((heading, *cells)).split() if heading == wraps else (heading, *cells)
        table.add_column(heading, overflow="fold", no_wrap=heading != wraps, min_width=max(map(cell_len, unbroken)))
    for row in filled:
        table.add_row(*row)
    return table


def _print_table(console: Console, table: Table) -> None:
    """Prints a table; where its words do not fit beside each other, row by row, each value in a line of its own."""
    # Measured for the console as it is, no table would be wider than that.
    if console.measure(table, options=console.options.update_width(_MAX_WIDTH)).minimum <= console.width:
        console.print(table)
        return
    console.print(table.title, style="bold")
    headings, *rows = zip(*([column.header, *column.cells] for column in table.columns), strict=True)
    for row in rows:
        lines = Table.grid(padding=(0, 2))
        lines.add_column(style="dim")
        lines.add_column(overflow="fold")
        for heading, cell in zip(headings, row, strict=True):
            lines.add_row(heading, cell)
        console.print(lines)
        console.print()


def _what(event: EventRow) -> str:
    changes = [f"set {key} = {_compact(value)}" for key, value in event.state_delta.items()]
    return "\n".join((*event.what, *changes))


def _seconds(timestamp: str) -> str:
    return f"{datetime.fromisoformat(timestamp):%Y-%m-%d %H:%M:%S}"


def _clock(timestamp: str) -> str:
    return f"{datetime.fromisoformat(timestamp):%H:%M:%S.%f}"[:-3]


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
