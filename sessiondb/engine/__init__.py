"""The machine around a store: the write queue and its one thread, the readers, waiting, sharing, forks, the cache.

Nothing in here knows of ADK or of a database: a store is reached through the protocols of :mod:`sessiondb.engine.store`.
"""
