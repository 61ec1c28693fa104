"""What other processes do in these tests; each function is the whole of a process. And a schema that is to come."""

from __future__ import annotations

import resource
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from sessiondb.errors import UpgradeError
from sessiondb.stores.sqlite import schema
from sessiondb.stores.sqlite.connection import open_writer
from sessiondb.stores.sqlite.upgrade import Step


def rename_a_column(connection: sqlite3.Connection) -> None:
    connection.execute("ALTER TABLE adk_sessions RENAME COLUMN log_epoch TO epoch")


def rebuild_a_table(connection: sqlite3.Connection) -> None:
    """Replaces a table that others refer to, as https://www.sqlite.org/lang_altertable.html has it."""
    triggers = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute(
        "CREATE TABLE rebuilt (app_name TEXT NOT NULL, user_id TEXT NOT NULL, session_id TEXT NOT NULL, created_at,"
        " updated_at, update_time, incarnation, revision, last_seq, epoch, initial_state, begun_after, forked_user_id,"
        " forked_session_id, forked_seq, cut_seq, cut_revision, cut_time, PRIMARY KEY (app_name, user_id, session_id))"
    )
    connection.execute("INSERT INTO rebuilt SELECT * FROM adk_sessions")
    connection.execute("DROP TABLE adk_sessions")
    connection.execute("ALTER TABLE rebuilt RENAME TO adk_sessions")
    for _, sql in triggers:
        connection.execute(sql)


def later(*steps: Step) -> schema.Schema:
    """Returns the schema that these steps lead to from the present one."""
    version = schema.PRESENT.version
    return schema.Schema(version + len(steps), "", dict(enumerate(steps, version)))


def say(*words: object) -> None:
    """Tell the parent process."""
    print(*words, flush=True)  # noqa: T201  # the parent listens


def say_and_wait(word: str) -> None:
    """Tell the parent process, and wait for its answer."""
    say(word)
    sys.stdin.readline()


def open_later_schema(path: str) -> None:
    """Upgrade a file, if nobody else has; waits within."""

    def step(connection: sqlite3.Connection) -> None:
        rename_a_column(connection)
        say_and_wait("upgrading")

    with closing(open_writer(Path(path), "full", 30)) as connection:
        connection.set_trace_callback(lambda statement: say(statement) if statement == "BEGIN IMMEDIATE" else None)
        schema.prepare(connection, Path(path), later(step))
        connection.set_trace_callback(None)
        say(connection.execute("SELECT user_version, count(*) FROM pragma_user_version, adk_sessions").fetchone())


def open_later_schema_on_a_full_disk(path: str) -> None:
    """Upgrade a file where no file may be longer than 64 KiB: the operating system refuses to write more."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
    with closing(open_writer(Path(path), "full", 30)) as connection:
        try:
            schema.prepare(connection, Path(path), later(rename_a_column))
        except UpgradeError as error:
            say(error)
