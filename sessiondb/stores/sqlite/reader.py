"""Connections that only read, and answer the queries of the model."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import GeneratorType
from typing import Any, TypeVar, cast

from typing_extensions import override

from sessiondb.engine.store import Reader
from sessiondb.errors import StorageError
from sessiondb.model.queries import Query
from sessiondb.stores.sqlite import reads, schema
from sessiondb.stores.sqlite.connection import ClosedAtExit, closed_on_failure, open_reader, snapshot
from sessiondb.stores.sqlite.errors import is_not_utf8, translate, translated
from sessiondb.stores.sqlite.file_identity import lost_file
from sessiondb.stores.sqlite.readonly import ReadOnlyFile

ResultT = TypeVar("ResultT")


class SqliteReader(ClosedAtExit, Reader):
    """A reader beside a writer of the same process."""

    def __init__(self, path: Path, connection: sqlite3.Connection, identity: tuple[int, int] | None = None) -> None:
        self._path = path
        self._connection = connection
        self._identity = identity
        self._streams: weakref.WeakSet[Generator[Any, None, None]] = weakref.WeakSet()
        self._version: int | None = None

    @classmethod
    def open(cls, path: Path, timeout: float, identity: tuple[int, int]) -> SqliteReader:
        """Opens a connection; ``identity`` is device and inode of the file that the writer has open."""
        try:
            return cls(path, open_reader(path, timeout), identity)
        except StorageError as error:
            raise lost_file(path, identity) or error from error

    @override
    def close(self) -> None:
        self._end_streams()
        self._connection.close()

    @override
    def ask(self, query: Query[ResultT]) -> ResultT:
        try:
            answer = reads.answer(self._connection, query)
        except sqlite3.Error as error:
            raise self._failure(error, query) from (None if is_not_utf8(error) else error)
        if isinstance(answer, GeneratorType):
            stream = self._streamed(answer, query)
            self._streams.add(stream)
            return cast("ResultT", stream)
        return answer

    @override
    def hasten(self) -> None:
        # Closed meanwhile: nothing is asked any more.
        with suppress(sqlite3.ProgrammingError):
            self._connection.interrupt()

    @override
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with translated(self._path, reading=True), snapshot(self._connection):
            yield

    @override
    def changed(self) -> bool:
        known, self._version = self._version, self._data_version()
        return known != self._version

    def _end_streams(self) -> None:
        # One that is left half read would meet a closed connection when it is collected, and complain where nobody listens.
        for stream in list(self._streams):
            stream.close()

    def _streamed(self, answer: Iterator[Any], query: Query[Any]) -> Generator[Any, None, None]:
        try:
            yield from answer
        except sqlite3.Error as error:
            raise self._failure(error, query) from (None if is_not_utf8(error) else error)

    def _failure(self, error: sqlite3.Error, query: Query[Any]) -> StorageError:
        # What SQLite meets in another file (a page that is not there, a file that is too short) says nothing of the disk.
        if self._identity and (lost := lost_file(self._path, self._identity)):
            return lost
        if is_not_utf8(error):
            return reads.not_utf8(self._connection, query)
        return translate(error, self._path, reading=True)

    def _data_version(self) -> int:
        with translated(self._path, reading=True):
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])


class OutsideReader(SqliteReader):
    """A reader of a file that other processes may use: nothing of it, and nothing beside it, is changed or created."""

    def __init__(self, path: Path, timeout: float) -> None:
        self._file = ReadOnlyFile(path, timeout)
        with closed_on_failure(self._file):
            super().__init__(path, self._file.connection)
            self._begin()

    @override
    def close(self) -> None:
        self._end_streams()
        self._file.close()

    @override
    @contextmanager
    def snapshot(self) -> Iterator[None]:
        with self._file.snapshot():
            yield

    @override
    def changed(self) -> bool:
        if self._file.is_current():
            # A file at rest, or a copy of one: no version is counted there.
            return self._file.is_shared and super().changed()
        self._end_streams()
        self._file.reopen()
        self._connection = self._file.connection
        self._begin()
        return True

    @override
    def _failure(self, error: sqlite3.Error, query: Query[Any]) -> StorageError:
        return self._file.failure(error) or super()._failure(error, query)

    def _begin(self) -> None:
        self._version = self._data_version()
        with self._file.translated():
            schema.check_version(self._connection, self._path)
