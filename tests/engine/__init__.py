"""The engine: queue, writer, readers, waiting, closing, forking, and several processes on one file.

Where the tests of a module of :mod:`sessiondb.engine` are:

===========  ===========================================================================================================
queue        ``test_queue`` (full queue, order, timeouts)
writer       ``test_batching``, ``test_busy`` (locks), ``test_health`` (slow, stalled), ``test_writer_failures``
readers      ``test_reader_pool``
waiting      ``test_cancellation``, ``test_event_loops`` (asyncio, trio, uvloop, threads)
handles      ``test_handles``; the rules for callers: ``tests/contract/test_handles``
cache        ``test_cache``
reading      ``test_reading`` (snapshots, read-your-writes, filters)
sharing      ``test_sharing``, ``test_copies``, ``test_fork``, ``test_exit``, ``test_several_processes``
turns        ``test_turns``, ``test_turn_cancellation``; the plugin: ``tests/runner/test_one_turn``
engine       ``test_closing``, ``test_leaks`` (threads, descriptors, services never closed)
store        ``test_store_protocol`` (what is the engine's own, on a fake store: ``memory_store``)
===========  ===========================================================================================================

What the engine writes into the host's log: ``test_logs``. Files, WAL and vacuum: ``tests/sqlite``. Helpers: ``tools``
(holds the engine up and looks into it), ``failing_connection``, ``cancelling``, ``processes`` (starts what is in
``*_programs``).
"""
