"""The demonstration, run as a user runs it; its claims are checked against the file it leaves behind."""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sessiondb.cli import main
from sessiondb.demo import timing
from sessiondb.demo.conversation import go_on_in_new_process
from sessiondb.errors import ConfigurationError
from tests.command import start_sessiondb


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of one run on a new database, kept; nothing but JSON is on either stream."""
    done = start_sessiondb("demo", "--json", "--keep", TMPDIR=str(tmp_path_factory.mktemp("kept")))
    assert (done.returncode, done.stderr) == (0, "")
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


@pytest.fixture(scope="module")
def database(report: dict[str, Any]) -> Path:
    """The file that the run left behind."""
    assert report["kept"]
    return Path(report["path"])


def test_demo_second_process_resumes_first_one(report: dict[str, Any]) -> None:
    first, second = report["processes"]
    assert len({first["pid"], second["pid"], os.getpid()}) == 3
    recalled, trained, elsewhere = second["turns"]
    # The model keeps nothing between requests, and this process has made none before: history and state were stored.
    assert recalled["message"] == "What do you remember?"
    assert recalled["reply"] == (
        "You wrote 2 messages before, the first was 'Train a linear model.'. "
        "I trained models/linear-1.pkl, models/forest-2.pkl. "
        "In my state: model_path=models/forest-tuned.pkl, user:models_trained=2, app:models_trained=2."
    )
    assert (trained["tool_calls"], trained["reply"]) == (["train_model"], "Trained models/boosted-3.pkl.")
    assert elsewhere["session_id"] != recalled["session_id"] == first["turns"][0]["session_id"]
    assert elsewhere["reply"] == (
        "This conversation has just begun. In my state: model_path=, user:models_trained=3, app:models_trained=3."
    )


def test_demo_log_has_no_partial_and_no_duplicate_event(report: dict[str, Any]) -> None:
    first, second = (process["pid"] for process in report["processes"])
    events = report["events"]
    assert [event["seq"] for event in events] == list(range(1, 16))
    assert [event["pid"] for event in events] == [first] * 8 + [None] + [second] * 6
    assert [event["what"] for event in events[:4]] == [
        ["Train a linear model."],
        ["Training a linear model.", "call train_model(algorithm='linear')"],
        ["train_model returned {'model_path': 'models/linear-1.pkl'}"],
        ["Trained models/linear-1.pkl."],
    ]
    assert all(turn["partial_events"] for process in report["processes"] for turn in process["turns"])
    assert [session["events"] for session in report["sessions"]] == [15, 2]


def test_demo_state_is_stored_by_scope_without_temp(report: dict[str, Any], database: Path) -> None:
    assert report["state"] == [
        {"scope": "APP", "key": "models_trained", "value": 3},
        {"scope": "SESSION", "key": "model_path", "value": "models/boosted-3.pkl"},
        {"scope": "USER", "key": "models_trained", "value": 3},
    ]
    assert b"temp:trace" not in b"".join(file.read_bytes() for file in database.parent.iterdir())


def test_demo_audit_trail_equals_sql_query(report: dict[str, Any], database: Path) -> None:
    values = ["models/linear-1.pkl", "models/forest-2.pkl", "models/forest-tuned.pkl", "models/boosted-3.pkl"]
    assert report["audited_key"] == "model_path"
    assert [change["value"] for change in report["audit_trail"]] == values
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT actions FROM adk_events WHERE session_id = ? AND actions LIKE '%model_path%' ORDER BY id",
            (report["sessions"][0]["session_id"],),
        ).fetchall()
    assert [json.loads(actions)["state_delta"]["model_path"] for (actions,) in rows] == values


def test_demo_counts_equal_those_of_the_file(report: dict[str, Any], database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("adk_sessions", "adk_events", "adk_state")
        ]
    assert [report["totals"][key] for key in ("sessions", "events", "state_keys")] == counts == [2, 17, 3]


def test_demo_times_each_step_against_in_memory(report: dict[str, Any], database: Path) -> None:
    timings = report["timings"]
    assert [step["step"].split(",")[0].split(" (")[0] for step in timings] == [
        "create_session",
        "append_event",
        "get_session",
        "get_session",
        "a turn with a tool call",
    ]
    for step in timings:
        assert step["repeats"] >= 12
        assert step["ratio"] == pytest.approx(step["sessiondb_ms"] / step["in_memory_ms"])
    assert {file.name.split("-")[0] for file in database.parent.iterdir()} == {"demo.sqlite3"}, "timing left files"


def test_demo_second_run_adds_to_same_file(report: dict[str, Any], database: Path) -> None:
    done = start_sessiondb("demo", "--path", database)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert "analyst Trained models/linear-4.pkl." in rows, "the app's counter went on from 3"
    for session in report["sessions"]:
        assert any(row.startswith(session["session_id"]) for row in rows)
    assert "APP models_trained 6" in rows
    assert "USER models_trained 6" in rows
    assert 'SESSION model_path "models/boosted-6.pkl"' in rows
    assert any(row.startswith("append_event 1200 ") for row in rows)
    assert f"The database is kept: {database}" in rows


def test_demo_without_path_uses_temporary_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # The runs above show them at their size.
    for name in ("_SESSIONS", "_EVENTS", "_REREADS", "_TURNS"):
        monkeypatch.setattr(timing, name, 2)
    done = CliRunner().invoke(main, ["demo"])
    assert (done.exit_code, done.stderr, capfd.readouterr().err) == (0, "", "")
    assert "is gone" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_refuses_non_database_and_leaves_it(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to look at" * 100, encoding="utf-8")
    before = file.read_bytes()
    done = start_sessiondb("demo", "--path", file)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert len(done.stderr.splitlines()) == 1
    assert file.read_bytes() == before


def test_demo_reports_failing_second_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigurationError, match="is not a regular file"):
        go_on_in_new_process(tmp_path, "a folder is no database")
    assert capfd.readouterr().err == ""
