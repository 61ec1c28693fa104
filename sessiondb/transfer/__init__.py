"""Whole sessions on their way between databases, files and ADK's own session services."""
