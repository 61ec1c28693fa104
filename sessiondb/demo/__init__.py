"""The demonstration behind ``sessiondb demo``.

A real ADK Runner holds a conversation on :class:`sessiondb.DatabaseSessionService`, with a
model that needs no network; another process goes on with it; then the file is read back, and
each step is timed beside ADK's in-memory service.
"""
