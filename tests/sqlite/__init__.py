"""The SQLite store: one file, what is in it, and what can happen to it.

Where the tests of a module of :mod:`sessiondb.stores.sqlite` are:

==============================  ========================================================================================
store, new_file                 ``test_opening``, ``test_file_kinds`` (links, permissions, files of others)
connection                      ``test_opening`` (set-up), ``test_wal`` (file systems without it)
errors                          ``test_errors``
counting                        ``test_counting``
reads                           ``test_reads_at_once``, ``test_corrupt_rows``; snapshots: ``tests/engine/test_reading``
session_list, past              ``tests/contract/test_pages``, ``tests/contract/test_past``
usage                           ``tests/contract/test_usage``
erasure                         ``test_erasure`` (what is left in files), ``tests/contract/test_erasure``
search, text_index, indexing    ``tests/contract/test_search``, ``test_text_index``; ``tests/faults/test_indexing``
writes                          ``schema/test_tables``, ``schema/test_direct_sql``; ``tests/engine/test_batching``
wal                             ``test_wal`` (checkpoints), ``test_vacuum``
writer, line                    ``test_line``; ``tests/engine/test_busy``, ``tests/engine/test_writer_failures``
file_identity                   ``test_lost_file``
turns                           ``test_turns``
schema                          ``schema/test_create_tables``, ``schema/test_tables``, ``test_locality`` (an index)
upgrade                         ``schema/test_upgrade``, ``schema/test_frozen``
backup                          ``repair/test_backup``, ``repair/test_backup_target``
bulk_import                     ``tests/cli/test_transfer``, ``tests/cli/test_migrate``
readonly                        ``tests/cli/test_reading``, ``repair/test_check``
repair.check                    ``repair/test_check``
repair.{pages,salvage,          ``repair/test_recover``, ``repair/test_recover_wal``, ``repair/test_recover_command``
rebuild,recover}
==============================  ========================================================================================
"""
