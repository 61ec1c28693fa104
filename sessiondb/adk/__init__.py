"""ADK's objects and the plain records of :mod:`sessiondb.model`: conversion both ways. No SQL, no threads."""
