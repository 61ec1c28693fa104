"""What ADK expects of a session service, asked of ADK's in-memory one, ADK's SQLite one, and this one on each of its stores."""
