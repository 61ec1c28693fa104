"""What is only for files that may be damaged: used by commands, never by a service."""
