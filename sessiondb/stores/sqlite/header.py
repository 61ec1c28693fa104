"""What a file says of itself in its header: whose it is, and of which schema version."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

APPLICATION_ID = 0x53455344
"""``SESD`` in ASCII, in the header of every file of ours."""


class Found(NamedTuple):
    """What a file says of itself."""

    application_id: int
    version: int
    objects: int
    """Tables, indexes, views and triggers in it."""

    @property
    def is_ours(self) -> bool:
        """Whether sessiondb has made it."""
        return self.application_id == APPLICATION_ID

    @property
    def is_empty(self) -> bool:
        """Whether nobody has made anything of it yet."""
        return not (self.application_id or self.version or self.objects)


def look(connection: sqlite3.Connection) -> Found:
    """Returns what a file says of itself."""
    # One statement, so one moment: another process may be creating the tables.
    return Found._make(
        connection.execute(
            "SELECT application_id, user_version, (SELECT count(*) FROM sqlite_schema)"
            " FROM pragma_application_id, pragma_user_version"
        ).fetchone()
    )
