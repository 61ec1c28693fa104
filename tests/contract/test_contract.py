"""The cases of the table, in each of the three services."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.contract import handles, logs, sessions, state
from tests.contract.places import KINDS, Kind, Place
from tests.contract.table import TABLE, Row


@pytest.mark.anyio
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
async def test_a_case_shows_what_the_table_says(row: Row, kind: Kind, tmp_path: Path) -> None:
    async with Place(kind, tmp_path) as place:
        assert await row.case(place) == row.expected[kind]


def test_every_case_is_in_the_table_once() -> None:
    written = [
        name
        for module in (sessions, logs, state, handles)
        for name, function in inspect.getmembers(module, inspect.iscoroutinefunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    ]
    assert sorted(written) == sorted(row.name for row in TABLE)
