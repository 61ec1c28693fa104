"""What `-o` writes to, and what it leaves alone."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sessiondb import DatabaseSessionService
from sessiondb.cli import main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A database with one session that nobody has open."""
    path = tmp_path / "source.sqlite3"

    async def make() -> None:
        async with DatabaseSessionService(path) as service:
            await service.create_session(app_name="app", user_id="user", session_id="s")

    asyncio.run(make())
    return path


def export(source: Path, output: Path | str, *options: str) -> Result:
    return CliRunner().invoke(main, ["export", str(source), "-o", str(output), *options])


def refused(source: Path, output: Path, why: str, *options: str) -> None:
    """The command says why, and what is there stays as it is."""
    before = {path.name: path.read_bytes() for path in source.parent.iterdir() if path.is_file()}
    done = export(source, output, *options)
    assert done.exit_code == 2
    assert why in done.stderr
    assert "nothing was written" in done.stderr
    assert {path.name: path.read_bytes() for path in source.parent.iterdir() if path.is_file()} == before


@pytest.mark.parametrize("options", [(), ("--overwrite",)])
def test_export_never_replaces_a_database(source: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """Seen failing while the database was JSON Lines afterwards, with exit code 0."""
    refused(source, source, "is the database itself", *options)
    linked, other = tmp_path / "link.sqlite3", tmp_path / "other.sqlite3"
    linked.symlink_to(source)
    refused(source, linked, "is the database itself", *options)
    other.write_bytes(source.read_bytes())
    refused(source, other, "is a database", *options)
    os.link(source, tmp_path / "hard.sqlite3")
    refused(source, tmp_path / "hard.sqlite3", "is the database itself", *options)


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_export_never_replaces_what_belongs_to_a_database(source: Path, tmp_path: Path, end: str) -> None:
    refused(source, tmp_path / f"source.sqlite3{end}", "belongs to the database beside it", "--overwrite")
    used = tmp_path / "used"
    used.write_text("no header yet")
    (tmp_path / f"used{end}").write_text("")
    refused(source, used, "in use, or its last user crashed", "--overwrite")


def test_export_replaces_an_existing_file_only_with_overwrite(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("earlier")
    refused(source, output, "--overwrite replaces it")
    assert export(source, output, "--overwrite").exit_code == 0
    assert output.read_text().startswith('{"type":"header"')
    assert stat.S_IMODE(output.stat().st_mode) == 0o600


def test_export_through_symlink_leaves_the_link(source: Path, tmp_path: Path) -> None:
    link, target = tmp_path / "link.jsonl", tmp_path / "target.jsonl"
    link.symlink_to(target)
    assert export(source, link).exit_code == 0
    assert link.is_symlink()
    assert target.read_text().startswith('{"type":"header"')


def test_export_writes_through_devices_and_pipes(source: Path, tmp_path: Path) -> None:
    """Seen failing while a file took the place of the device."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_text()))
    reader.start()
    assert export(source, fifo).exit_code == 0
    reader.join()
    assert read[0].startswith('{"type":"header"')
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert export(source, "/dev/null").exit_code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_export_to_dash_is_standard_output(source: Path) -> None:
    assert export(source, "-").stdout.startswith('{"type":"header"')


def test_export_to_full_device_fails_in_one_line(source: Path) -> None:
    done = export(source, "/dev/full")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "Error: cannot write to /dev/full: No space left on device\n"


def test_export_to_folder_is_refused(source: Path, tmp_path: Path) -> None:
    refused(source, tmp_path, "is not a regular file", "--overwrite")


def test_tilde_of_file_and_output_is_the_home_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quoted, so that no shell has expanded it. Seen failing while a folder named ``~`` was written to."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    done = CliRunner().invoke(main, ["export", f"~/{source.name}", "-o", "~/out.jsonl"])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "out.jsonl").exists()
    done = CliRunner().invoke(main, ["backup", f"sqlite:///~/{source.name}", "~/copy.sqlite3"])
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "copy.sqlite3").exists()
    assert list(Path.cwd().iterdir()) == []


def test_tilde_of_an_unknown_user_is_an_error_of_usage(source: Path) -> None:
    refused(source, Path("~sessiondb-nobody/out.jsonl"), "home folder that '~sessiondb-nobody' stands for")
    done = CliRunner().invoke(main, ["list", "~sessiondb-nobody/x.sqlite3"])
    assert done.exit_code == 2
    assert "home folder that '~sessiondb-nobody' stands for" in done.stderr
