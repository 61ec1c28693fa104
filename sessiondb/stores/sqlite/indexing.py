"""Making the index of texts of a file, and removing it, beside services that use the file."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sessiondb.engine.store import Progress
from sessiondb.options import StoreOptions
from sessiondb.stores.sqlite.connection import let_pass
from sessiondb.stores.sqlite.new_file import prepare_file
from sessiondb.stores.sqlite.writer import INDEX_PAUSE, SqliteWriter


def build_index(path: Path, progress: Progress | None) -> bool:
    """Makes the index where it is missing, and goes on with one that is not complete; says whether there was anything to do.

    It is done in slices, with a pause behind each, as long as it, in which others write. Ended in between, it goes on the next time.

    Raises:
        ConfigurationError: If this SQLite has no FTS5.
        StorageError: If SQLite refuses.
    """
    prepare_file(path)
    with closing(SqliteWriter(path, StoreOptions(index="text"))) as writer:
        found = writer.index
        # A fresh one of a file without events is complete, and was made all the same.
        did_anything = writer.made_index or (found is not None and not found.is_complete)
        while found is not None and not found.is_complete:
            if progress is not None:
                progress(found.built_to, found.begun_after)
            # As long as the slice before: who waits for the lock looks at intervals that grow.
            let_pass(max(writer.slice_seconds, INDEX_PAUSE))
            found = writer.build_index()
        if progress is not None and found is not None:
            progress(found.begun_after, found.begun_after)
    return did_anything


def drop_index(path: Path) -> bool:
    """Removes the index, in slices; says whether there was one. Ended in between, it goes on the next time.

    Raises:
        StorageError: If SQLite refuses.
    """
    prepare_file(path)
    with closing(SqliteWriter(path, StoreOptions())) as writer:
        was_there = False
        while writer.drop_index():
            was_there = True
            let_pass(INDEX_PAUSE)
    return was_there
