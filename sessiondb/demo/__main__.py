"""The demonstration's second process: ``python -m sessiondb.demo FILE SESSION_ID``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from sessiondb.errors import SessionDBError

from .conversation import as_json, go_on


def main() -> None:
    """Go on with the session and print what was said, as JSON."""
    path, session_id = sys.argv[1:]
    try:
        part = asyncio.run(go_on(Path(path), session_id))
    except SessionDBError as error:
        sys.exit(f"Error: {error}")
    sys.stdout.write(as_json(part))


if __name__ == "__main__":
    main()
