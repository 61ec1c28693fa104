"""How the commands print: data on standard output, and nothing in it that a terminal would obey."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, TypeVar
from unicodedata import category

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
json_lines_option = click.option("--json", "as_json", is_flag=True, help="Print JSON Lines instead of text.")

ItemT = TypeVar("ItemT")

_MEASURED_ROWS = 200
"""Rows that decide how wide the columns of a table are; the rest may be endless."""

_GAP = "  "
_LOWER_LINE = "  "

_TO_THE_SECOND = len("2026-01-31T12:00:00")
"""How much of a time a narrow terminal gets."""

_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Categories of characters that move the cursor, start an escape sequence, turn the direction of what follows around, or
cannot be seen, so that two names look alike."""


class _Shown(dict[int, int | str]):
    """How characters are printed, each found out when it comes first."""

    def __missing__(self, code: int) -> int | str:
        shown: int | str = code
        if category(chr(code)) in _UNSAFE:
            shown = f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
        self[code] = shown
        return shown


_SHOWN = _Shown()
_SHOWN_IN_TEXT = _Shown({0x09: 0x09, 0x0A: 0x0A})


def safe_line(text: str) -> str:
    """Returns ``text`` as one line, its control characters written out."""
    return text.translate(_SHOWN)


def safe_text(text: str) -> str:
    """As :func:`safe_line`, with line breaks and tabs left as they are."""
    return text.replace("\r\n", "\n").translate(_SHOWN_IN_TEXT)


def compact_json(value: Any) -> str:
    """Returns ``value`` as readable JSON on one line, safe to print."""
    return safe_line(json.dumps(value, ensure_ascii=False))


def print_json(value: Any) -> None:
    """Prints ``value`` as indented JSON."""
    click.echo(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """Prints ``value`` as one line of JSON; pure ASCII, so that every control character is escaped."""
    click.echo(json.dumps(value))


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Prints names and values as a table."""
    click.echo(pairs_text(pairs))


def pairs_text(pairs: Mapping[str, Any], estimated: Container[str] = ()) -> str:
    """Returns names and values as a table; of some names it says that the value is an estimate."""
    shown = {name: f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" for name, value in pairs.items()}
    shown = {name: f"about {value}" if name in estimated else value for name, value in shown.items()}
    name_width = max(map(len, shown))
    value_width = max(map(len, shown.values()))
    return "\n".join(f"{name:<{name_width}}  {value:>{value_width}}" for name, value in shown.items())


def print_rows(header: Sequence[str], rows: Iterable[Sequence[str]], *, time_first: bool = True) -> None:
    """Prints rows in aligned columns as they come, a time in the first unless said otherwise; nothing if there are none.

    A terminal would break lines that are too long for it, in the middle of a word. There the columns that do not fit stand
    in a line below, and a value that is wider than the terminal is cut.
    """
    from rich.cells import cell_len, set_cell_size

    remaining = ([safe_line(cell) for cell in row] for row in rows)
    first = list(islice(remaining, _MEASURED_ROWS))
    if not first:
        return
    measured = [list(header), *first]
    widths = [max(map(cell_len, column)) for column in zip(*measured, strict=True)]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    time_width = None
    if time_first and room is not None and len(_packed(widths, room)) > 1:
        time_width = widths[0] = min(widths[0], _TO_THE_SECOND)
    lines = _packed(widths, room)
    is_cut = False
    for row in chain(measured, remaining):
        row[0] = row[0][:time_width]
        for columns in lines:
            cells = (row[column] + " " * max(0, widths[column] - cell_len(row[column])) for column in columns)
            line = (_LOWER_LINE * bool(columns.start) + _GAP.join(cells)).rstrip()
            if room is not None and cell_len(line) > room:
                is_cut = True
                line = set_cell_size(line, room - 1) + "…"
            click.echo(line)
    if is_cut:
        note("What ends in … is cut to the width of the terminal; --json has all of it.")


def _packed(widths: Sequence[int], room: int | None) -> list[range]:
    """Returns which columns stand in which line; None: there is room for all in one."""
    lines, start, used = [], 0, 0
    for column, width in enumerate(widths):
        if room is not None and column > start and used + len(_GAP) + width > room:
            lines.append(range(start, column))
            start, used = column, len(_LOWER_LINE) + width
        else:
            used += width + len(_GAP) * (column > start)
    return [*lines, range(start, len(widths))]


def or_say_so(items: Iterable[ItemT], what: str) -> Iterator[ItemT]:
    """Passes items on; where there are none, says so on standard error: silence could be taken for a mistake.

    Args:
        items: The items.
        what: What there is none of.
    """
    found = False
    for item in items:
        found = True
        yield item
    if not found:
        click.echo(safe_line(f"there is no {what}"), err=True)


def note(text: str) -> None:
    """Tells a person something that is not data: on standard error, if that is a terminal."""
    if sys.stderr.isatty():
        click.echo(safe_line(text), err=True)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], object]]:
    """Shows a bar on standard error if that is a terminal, and nothing if not; ``total`` is how much there is, if that is known.

    Yields:
        A function that is told how much was done since it was last called.
    """
    if not sys.stderr.isatty():
        yield lambda _done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda done: bar.advance(task, done)
