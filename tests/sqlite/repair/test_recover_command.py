"""``sessiondb recover``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import run_sessiondb
from tests.sqlite.repair.conftest import Original
from tests.sqlite.repair.files import PAGE, overwrite


def test_recover_command_reports_saved_and_lost(original: Original, tmp_path: Path) -> None:
    damaged, new = tmp_path / "damaged.sqlite3", tmp_path / "new.sqlite3"
    lost = max(original.layout.of_table("adk_events"))
    damaged.write_bytes(overwrite(original.data, [lost], bytes(PAGE)))

    done = run_sessiondb("recover", damaged, new, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    rows = 1080 - len(original.layout.surviving("adk_events", [lost]))
    assert rows
    assert report["unreadable_pages"] == [[lost, lost]]
    assert report["tables"]["adk_events"]["saved"] == 1080 - rows
    assert sum(session["lost_events"] for session in report["touched"]) == rows

    new.unlink()
    done = run_sessiondb("recover", damaged, new)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"damaged pages: 1 of {original.layout.count:,} ({lost})"
    assert lines[1] == "adk_sessions: 180 rows saved, 0 damaged"
    assert any(line.startswith("session 's") and "events lost (" in line for line in lines)
    assert run_sessiondb("check", new).returncode == 0


def test_recover_command_fails_in_one_line(original: Original, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.sqlite3"
    damaged.write_bytes(b"nothing")
    for target, words in ((tmp_path / "new", "no row"), (original.path, "exists")):
        done = run_sessiondb("recover", damaged, target)
        assert (done.returncode, done.stdout) == (1, "")
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [damaged]


def test_recover_command_without_two_files_is_usage_error(tmp_path: Path) -> None:
    assert run_sessiondb("recover", tmp_path / "missing", tmp_path / "new").returncode == 2
    assert run_sessiondb("recover", tmp_path / "missing").returncode == 2
    assert list(tmp_path.iterdir()) == []
