"""Processes to harm, seeds that a failure names, and the table of figures."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import figures as figures_module
from tests.faults.figures import Figures
from tests.faults.shim import compile_shim
from tests.faults.sizes import FULL, new_seed
from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def shim_library(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    return compile_shim(tmp_path_factory.mktemp("shim"))


@pytest.fixture(scope="session")
def any_zygote(shim_library: Path | None) -> Iterator[Zygote]:
    """Starts processes, with the shim where it can be compiled."""
    with Zygote(shim_library) as zygote:
        yield zygote


@pytest.fixture
def zygote(any_zygote: Zygote) -> Zygote:
    """Starts processes that have the shim."""
    if not any_zygote.has_shim:
        pytest.skip("NOT SHOWN HERE: no C compiler (cc, gcc or clang) to build the fault shim with")
    return any_zygote


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in the memory file system, where there is one."""
    memory = Path("/dev/shm")  # noqa: S108  # a private folder is made in it
    folder = Path(tempfile.mkdtemp(prefix="sessiondb-faults-", dir=memory if memory.is_dir() else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def rng() -> random.Random:
    """Randomness; the seed is printed, and shown if the test fails."""
    seed = new_seed()
    print(f"repeat with SESSIONDB_FAULTS_SEED={seed}")  # noqa: T201  # captured, shown with a failure
    return random.Random(seed)


@pytest.fixture
def figures() -> Figures:
    return figures_module.record


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if figures_module.TABLE:
        terminalreporter.section(f"faults, {'full' if FULL else 'small'} size")
        for line in figures_module.lines():
            terminalreporter.write_line(line)
