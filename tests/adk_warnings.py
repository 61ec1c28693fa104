"""What ADK's own services warn about, which is no matter of ours."""

from __future__ import annotations

import pytest

ADKS_SQLITE = [
    # It binds a sequence to ?1, of which Python 3.12 and newer warn.
    pytest.mark.filterwarnings("ignore:Binding 1 .'.1'. is a named parameter:DeprecationWarning"),
    # It leaves a connection to the garbage collector, of which Python 3.13 and newer warn.
    pytest.mark.filterwarnings("ignore:unclosed database in <sqlite3.Connection:ResourceWarning"),
    pytest.mark.usefixtures("garbage_is_collected"),
]
"""Marks for modules of tests that use ADK's ``SqliteSessionService``."""
