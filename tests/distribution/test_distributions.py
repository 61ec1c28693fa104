"""What is built from the tree: a source distribution, and a wheel that is the same whichever of the two it is made of."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("hatchling", reason="tox -e package has what is needed to build")


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command)], cwd=cwd, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, the wheel made of it, and the wheel made of the tree."""
    folder = tmp_path_factory.mktemp("distributions")
    # Build requirements are installed where this runs: nothing is downloaded.
    run("build", "--no-isolation", "--sdist", "--outdir", folder, ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    found = {"sdist": sdist}
    for name, tree in (("of the sdist", unpacked), ("of the tree", ROOT)):
        run("build", "--no-isolation", "--wheel", "--outdir", folder / name, tree)
        (found[name],) = (folder / name).iterdir()
    return found


def members(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def metadata(wheel: Path) -> Message:
    (name,) = (name for name in members(wheel) if name.endswith(".dist-info/METADATA"))
    return BytesParser().parsebytes(members(wheel)[name])


def test_wheel_built_from_sdist_equals_that_of_tree(distributions: dict[str, Path]) -> None:
    assert distributions["of the sdist"].name == distributions["of the tree"].name
    assert members(distributions["of the sdist"]) == members(distributions["of the tree"])


def test_wheel_holds_the_package_and_nothing_else(distributions: dict[str, Path]) -> None:
    names = set(members(distributions["of the tree"]))
    in_tree = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sessiondb").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "sessiondb/py.typed" in in_tree
    assert {name for name in names if not name.startswith("sessiondb-")} == in_tree
    info = {name.partition("/")[2] for name in names if name.startswith("sessiondb-")}
    assert info == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}


def test_wheel_declares_the_console_script(distributions: dict[str, Path]) -> None:
    (text,) = (
        content for name, content in members(distributions["of the tree"]).items() if name.endswith("entry_points.txt")
    )
    assert text.decode().split() == ["[console_scripts]", "sessiondb", "=", "sessiondb.cli:main"]


def test_wheel_metadata_is_complete(distributions: dict[str, Path]) -> None:
    found = metadata(distributions["of the tree"])
    assert (found["Name"], found["License-Expression"], found["Requires-Python"]) == (
        "sessiondb",
        "Apache-2.0",
        ">=3.11",
    )
    assert found["Description-Content-Type"] == "text/markdown"
    assert str(found.get_payload()).startswith("# sessiondb\n")
    assert found.get_all("Provides-Extra") == ["postgres", "testing"]
    requirements = [requirement for requirement in found.get_all("Requires-Dist", []) if "extra" not in requirement]
    assert len(requirements) == len(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def test_twine_check_accepts_distributions(distributions: dict[str, Path]) -> None:
    assert "PASSED" in run("twine", "--no-color", "check", "--strict", *distributions.values())


def test_sdist_holds_tests_and_docs(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached"],  # noqa: S607  # where git is, differs
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    for name in (
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "pyproject.toml",
        "tox.ini",
        "docs/index.md",
        "tests/conftest.py",
    ):
        assert name in names
    assert not {
        name for name in names if name.startswith((".ci", ".git/", ".tox")) or name.endswith((".pyc", ".sqlite3"))
    }
    if listed.returncode == 0:
        tracked = {name for name in listed.stdout.split("\0") if name and not name.startswith(".ci/")}
        assert tracked <= names | {name for name in tracked if not os.path.lexists(ROOT / name)}


_CLIENT = """\
from sessiondb import DatabaseSessionService

service = DatabaseSessionService("sessions.sqlite3")
reveal_type(service.get_event_count("app", "user", "session"))
"""


def test_py_typed_lets_mypy_use_annotations(distributions: dict[str, Path], tmp_path: Path) -> None:
    """Installed, and seen from elsewhere: without ``py.typed`` it would be "missing library stubs or py.typed marker"."""
    environment = venv.EnvBuilder()
    environment.create(tmp_path / "venv")
    paths = {"base": str(tmp_path / "venv"), "platbase": str(tmp_path / "venv")}
    with zipfile.ZipFile(distributions["of the tree"]) as archive:
        archive.extractall(sysconfig.get_path("purelib", "venv", paths))  # noqa: S202  # built here
    (tmp_path / "client.py").write_text(_CLIENT, encoding="utf-8")
    python = tmp_path / "venv" / "bin" / "python"
    said = run(
        "mypy", "--strict", "--cache-dir", tmp_path / "cache", "--python-executable", python, "client.py", cwd=tmp_path
    )
    assert 'Revealed type is "int"' in said
