"""The stores, and what a database holds, asked beside the service: the same SQL on a file and on a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

STORES = ("sqlite", "postgres")


class Ask(Protocol):
    """Runs a statement whose placeholders are question marks, in a transaction of its own; returns the rows it has."""

    def __call__(self, statement: str, *values: object) -> list[tuple[Any, ...]]: ...


@contextmanager
def asking(location: Path | str) -> Iterator[Ask]:
    """Opens a connection for several statements; a server takes a while for each that is opened.

    Args:
        location: The file, or the URL of the server.

    Yields:
        What runs a statement. That holds no question mark and no percent sign beside the placeholders.
    """
    if isinstance(location, Path):
        with closing(sqlite3.connect(location)) as file:

            def ask_file(statement: str, *values: object) -> list[tuple[Any, ...]]:
                with file:
                    return file.execute(statement, values).fetchall()

            yield ask_file
        return
    import psycopg

    with closing(psycopg.connect(location, autocommit=True)) as connection:

        def ask_server(statement: str, *values: object) -> list[tuple[Any, ...]]:
            done = connection.execute(statement.replace("?", "%s").encode(), values)
            return [] if done.description is None else done.fetchall()

        yield ask_server


def query(location: Path | str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Runs a single statement, on a connection of its own; see :func:`asking`."""
    with asking(location) as ask:
        return ask(statement, *values)
