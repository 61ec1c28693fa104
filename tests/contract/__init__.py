"""What ADK expects of a session service, asked of three of them: ADK's in-memory one, ADK's SQLite one, and this one."""
