"""Commands that go on until they are told to stop."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

interval_option = click.option(
    "--interval",
    type=click.FloatRange(min=0.01, max=3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often to look.",
)


@contextmanager
def until_interrupted() -> Iterator[None]:
    """Takes Ctrl-C for the ordinary end."""
    try:
        yield
    except KeyboardInterrupt:
        # Whatever was typed last shares a line with "^C".
        if sys.stderr.isatty():
            click.echo(err=True)


@contextmanager
def in_place() -> Iterator[Callable[[str], None]]:
    """Yields a function that prints a text: at a terminal over the one before, elsewhere below it."""
    if not sys.stdout.isatty():
        yield click.echo
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False) as live:
        yield lambda text: live.update(Text(text), refresh=True)


def wait(seconds: float) -> None:
    """Waits; Ctrl-C ends it."""
    threading.Event().wait(seconds)
