"""ADK's own commands with this package's service: `adk web` in a browser, `adk api_server`, `adk run`."""
