"""What every test shares: the event loop, a place for a database, and how much hypothesis tries."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from sessiondb import DatabaseSessionService
from tests import command
from tests.databases import STORES

if TYPE_CHECKING:
    from tests.postgres.server import Server

# No deadline anywhere: a slow machine is no failure.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time, so that a build fails for its own change only.
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True)
# Of a Python on which what does not depend on it is not tested: a few examples show that all of it works there.
settings.register_profile("few", settings.get_profile("ci"), max_examples=20)
settings.register_profile("full", settings.get_profile("dev"), max_examples=2_000, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


_ONCE = (
    # Pages, packages, measurements: they speak of the project.
    "docs",
    "distribution",
    "cli/test_demo.py",
    "test_gates.py",
    "test_testing.py",
    # What they show is done by SQLite and the operating system, or is plain computing.
    "servers/test_web.py",
    "cli/test_conventions.py",
    "cli/test_edits.py",
    "cli/test_erase_user.py",
    "cli/test_init.py",
    "cli/test_migrate.py",
    "cli/test_prune.py",
    "cli/test_reading.py",
    "cli/test_transfer.py",
    "faults/postgres",
    "faults/test_crash.py",
    "faults/test_disk.py",
    "faults/test_edits.py",
    "faults/test_history.py",
    "faults/test_interrupted_calls.py",
    "faults/test_indexing.py",
    "faults/test_power.py",
    "faults/test_processes.py",
    "faults/test_soak.py",
    "faults/test_stalls.py",
    "sqlite/repair",
    "sqlite/test_erasure.py",
    "sqlite/test_file_kinds.py",
    "sqlite/test_text_index.py",
    "postgres",
    "adk/test_cutting.py",
    "adk/test_events.py",
    # Calls beyond ADK's; what cancellation, loops and threads have a part in is in the tables of every call.
    "contract/test_append_events.py",
    "contract/test_erasure.py",
    "contract/test_memory.py",
    "contract/test_pages.py",
    "contract/test_past.py",
    "contract/test_redaction.py",
    "contract/test_retention.py",
    "contract/test_search.py",
    "contract/test_truncation.py",
    "contract/test_usage.py",
    "test_options.py",
)
"""Tests that one Python runs, tox's py311. The others run what threads, processes, exits and ADK have a part in."""

_UNMEASURED = ("servers", "docs", "faults")
"""Tests whose programs are not measured by coverage: importing ADK takes them twice as long then, and what they run of the
package is measured in other tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if any(item.path.is_relative_to(here / name) for name in _ONCE):
            item.add_marker(pytest.mark.once)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Has tests marked ``each_store`` run once on each store, if they say where by ``location`` or by ``service``.

    A test that asks for ``database_path``, or is marked ``sqlite_only``, is about a file.
    """
    of_file = "database_path" in metafunc.fixturenames or metafunc.definition.get_closest_marker("sqlite_only")
    if "location" in metafunc.fixturenames and metafunc.definition.get_closest_marker("each_store") and not of_file:
        # What threads and loops do to a server is shown by the contract's tests; one Python is enough for the rest.
        each_python = metafunc.definition.path.is_relative_to(Path(__file__).parent / "contract")
        stores = [
            pytest.param(store, marks=[] if store == "sqlite" or each_python else [pytest.mark.once])
            for store in STORES
        ]
        metafunc.parametrize("location", stores, indirect=True)


@pytest.fixture(autouse=True)
def measured_here_alone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has programs of some tests run without coverage, which would start itself in each."""
    if any(request.path.is_relative_to(Path(__file__).parent / name) for name in _UNMEASURED):
        monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)


def pytest_configure() -> None:
    # A shell has what it runs in the background ignore SIGINT, and programs that are started here would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    command.close()


@pytest.fixture
def anyio_backend() -> str:
    """The loop of tests marked ``anyio``; a test for several loops parametrizes this name."""
    return "asyncio"


@pytest.fixture
def database_path(tmp_path: Path) -> Path:
    """A path where no file is yet."""
    return tmp_path / "adk.sqlite3"


@pytest.fixture
def location(request: pytest.FixtureRequest) -> Path | str:
    """Where a service keeps sessions: ``database_path``, or an empty database on a server."""
    found: Path | str
    if getattr(request, "param", "sqlite") == "sqlite":
        found = request.getfixturevalue("database_path")
    else:
        found = request.getfixturevalue("postgres_database")
    return found


@pytest.fixture
async def service(location: Path | str) -> AsyncIterator[DatabaseSessionService]:
    """An open service on ``location``."""
    async with DatabaseSessionService(location) as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """A PostgreSQL server that all tests of a process share: it is started by the first, and none may stop it."""
    from tests.postgres.server import server

    with server(fsync=False) as running:
        yield running


@pytest.fixture
def postgres_database(postgres_server: Server) -> str:
    """The URL of an empty database."""
    return postgres_server.fresh_database()


@pytest.fixture(scope="module")
def garbage_is_collected() -> Iterator[None]:
    """Lets what the tests of a module leave behind be warned of while their filters of warnings are still there."""
    yield
    gc.collect()
