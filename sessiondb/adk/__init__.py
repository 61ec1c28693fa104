"""Conversion between ADK's objects and the plain records of :mod:`sessiondb.model`. No SQL, no threads."""
