"""The embedded store: one SQLite file, one writer thread, a pool of read-only connections.

Nothing in here knows of ADK, and nothing outside of here holds SQL or imports sqlite3.
"""
