"""The stores, and what a database holds, asked beside the service: the same SQL on a file and on a server."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

STORES = ("sqlite", "postgres")


def query(location: Path | str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Runs a statement whose placeholders are question marks, in a transaction of its own; returns the rows it has.

    Args:
        location: The file, or the URL of the server.
        statement: It holds no question mark and no percent sign beside the placeholders.
        values: What stands for the question marks.
    """
    if isinstance(location, Path):
        with closing(sqlite3.connect(location)) as file, file:
            return file.execute(statement, values).fetchall()
    import psycopg

    with psycopg.connect(location) as connection:
        done = connection.execute(statement.replace("?", "%s").encode(), values)
        return [] if done.description is None else done.fetchall()
