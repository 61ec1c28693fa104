"""A random life of a database: whatever is done to it, it answers as the documented model does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.contract.longer_life import LongerLife
from tests.databases import STORES

if TYPE_CHECKING:
    from tests.postgres.server import Server


# To shrink an example takes minutes.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("store", STORES)
def test_life_of_a_database_follows_the_model(store: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    numbers = itertools.count()

    class NextLife(LongerLife):
        """A life in the next empty database."""

        def __init__(self) -> None:
            if store == "sqlite":
                super().__init__(tmp_path / f"{next(numbers)}.sqlite3")
            else:
                server: Server = request.getfixturevalue("postgres_server")
                super().__init__(server.fresh_database())

    run_state_machine_as_test(
        NextLife,
        settings=settings(
            max_examples=settings().max_examples // (4 if store == "sqlite" else 8),
            stateful_step_count=40,
            # To explain an example, hypothesis traces every line: slower than all the rest.
            phases=[phase for phase in Phase if phase is not Phase.explain],
        ),
    )
