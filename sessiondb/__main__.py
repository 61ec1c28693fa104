"""``python -m sessiondb`` is the ``sessiondb`` command."""

from __future__ import annotations

from sessiondb.cli import main

if __name__ == "__main__":
    main(prog_name="sessiondb")
