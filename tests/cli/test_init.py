"""``sessiondb init``: what it does to services.yaml, and what it finds out before ADK's servers are started."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from sessiondb.cli import main, services_file
from tests.command import run_sessiondb

OWN = {"scheme": "sessiondb", "type": "session", "class": "sessiondb.DatabaseSessionService"}
OTHER = {"scheme": "notes", "type": "memory", "class": "notes.Memory"}


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder with one agent."""
    folder = tmp_path / "agents"
    (folder / "assistant").mkdir(parents=True)
    (folder / "assistant" / "agent.py").touch()
    return folder


def registered(file: Path) -> list[dict[str, str]]:
    services: list[dict[str, str]] = yaml.safe_load(file.read_text(encoding="utf-8"))["services"]
    return services


# --- services.yaml ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("", []),
        ("# nothing yet\n", []),
        ("---\n", []),
        ("services:\n", []),
        ("services: []  # none\n", []),
        ("# ours\nservices:\n- scheme: notes\n  type: memory\n  class: notes.Memory  # see wiki\n# end\n", [OTHER]),
        ("services:\n    - scheme: notes\n      type: memory\n      class: notes.Memory\n\nmore: 1\n", [OTHER]),
        ("services:\n  - {scheme: notes, type: memory, class: notes.Memory}", [OTHER]),
        ("services: [{scheme: notes, type: memory, class: notes.Memory}]\nmore: 1\n", [OTHER]),
        ("services:\r\n  - scheme: notes\r\n    type: memory\r\n    class: notes.Memory\r\n", [OTHER]),
        ("\ufeffservices:\n  - scheme: notes\n    type: memory\n    class: |-\n      notes.Memory\nmore: 1\n", [OTHER]),
        ("more: {services: 1}\n", []),
    ],
)
def test_an_entry_is_added_and_every_other_line_stays(text: str, others: list[dict[str, str]], agents: Path) -> None:
    file = agents / "services.yaml"
    file.write_bytes(text.encode())
    before = yaml.safe_load(text) or {}
    plan = services_file.plan(agents)
    assert plan.change == "updated"
    plan.write()
    after = file.read_bytes().decode()
    assert yaml.safe_load(after) == {**before, "services": [*others, OWN]}
    remaining = iter(after.splitlines())
    if "[" not in text:
        assert all(line in remaining for line in text.splitlines()), after
    assert all(comment in after for comment in ("# none", "# see wiki", "# end") if comment in text)
    assert after.count("\r\n") == (after.count("\n") if "\r\n" in text else 0)
    assert services_file.plan(agents).change == "unchanged"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("services: [\n", "line 2"),
        ("- scheme: notes\n", "must hold a mapping"),
        ("services: notes\n", "must be a list"),
        ("services: [notes]\n", "must be a list"),
        ("services:\n- scheme: notes\n...\n--- {}\n", "not YAML"),
        ("{services: }\n", "left to a person"),
        ("services: ~\n", "left to a person"),
        ("one: &entry [{scheme: notes}]\nservices: *entry\n", "left to a person"),
        ("class: &c notes.Sessions\nservices:\n- {scheme: sessiondb, type: session, class: *c}\n", "left to a person"),
    ],
)
def test_a_file_that_is_not_understood_is_left_alone(text: str, reason: str, agents: Path) -> None:
    file = agents / "services.yaml"
    file.write_text(text)
    with pytest.raises(services_file.ServicesFileError, match=reason) as raised:
        services_file.plan(agents, replace=True)
    assert "services.yaml" in str(raised.value)
    assert file.read_text() == text


def test_bytes_that_are_no_text_are_no_services_file(agents: Path) -> None:
    (agents / "services.yaml").write_bytes(b"services: \xff\n")
    with pytest.raises(services_file.ServicesFileError, match="cannot be read"):
        services_file.plan(agents)


def test_another_class_is_replaced_only_on_demand(agents: Path) -> None:
    text = "services:\n- scheme: sessiondb  # mine\n  type: session\n  class: 'mine.Sessions'  # better\n"
    file = agents / "services.yaml"
    file.write_text(text)
    with pytest.raises(services_file.OtherClassError, match=r"for mine\.Sessions; --force"):
        services_file.plan(agents)
    services_file.plan(agents, replace=True).write()
    assert file.read_text() == text.replace("'mine.Sessions'", OWN["class"])


def test_of_two_registrations_the_last_one_counts_as_for_adk(agents: Path) -> None:
    own = yaml.safe_dump({"services": [OWN]})
    other = own.replace(OWN["class"], "mine.Sessions")
    (agents / "services.yaml").write_text(other)
    (agents / "services.yml").write_text(own)
    assert services_file.plan(agents).change == "unchanged"
    (agents / "services.yaml").write_text(own)
    (agents / "services.yml").write_text(other)
    plan = services_file.plan(agents, replace=True)
    assert (plan.path.name, plan.change) == ("services.yml", "updated")


def test_the_other_name_is_kept_if_that_is_the_file_there_is(agents: Path) -> None:
    (agents / "services.yml").write_text("services:\n")
    services_file.plan(agents).write()
    assert registered(agents / "services.yml") == [OWN]
    assert not (agents / "services.yaml").exists()


def test_a_link_stays_one_and_the_mode_is_kept(agents: Path, tmp_path: Path) -> None:
    target = tmp_path / "shared.yaml"
    target.write_text("services:\n")
    target.chmod(0o640)
    (agents / "services.yaml").symlink_to(target)
    services_file.plan(agents).write()
    assert (agents / "services.yaml").is_symlink()
    assert registered(target) == [OWN]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["agents", "shared.yaml"]


@pytest.mark.parametrize("scheme", ["session_db", "SessionDB", "session db"])
def test_a_scheme_that_no_uri_leads_to_is_noticed(scheme: str, agents: Path) -> None:
    (agents / "services.yaml").write_text(yaml.safe_dump({"services": [{**OWN, "scheme": scheme}]}))
    assert services_file.plan(agents).unreachable == (scheme,)


# --- The command -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [None, "notes/readme.md", "a/b/c/d/e/f/agent.py", ".git/agent.py"])
def test_a_folder_without_agents_is_a_wrong_call_and_nothing_is_created(inside: str | None, tmp_path: Path) -> None:
    if inside:
        (tmp_path / inside).parent.mkdir(parents=True)
        (tmp_path / inside).touch()
    before = sorted(tmp_path.rglob("*"))
    done = CliRunner().invoke(main, ["init", str(tmp_path), str(tmp_path / "adk.sqlite3")])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "there is no agent in" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_cannot_be_changed_fails_in_one_line(agents: Path, tmp_path: Path) -> None:
    (agents / "services.yaml").write_text("services: [\n")
    done = CliRunner().invoke(main, ["init", str(agents), str(tmp_path / "adk.sqlite3")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Error: {agents / 'services.yaml'} is not YAML: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "adk.sqlite3").exists()


def init_json(agents: Path, database: Path, **environment: str) -> tuple[int, dict[str, object], str]:
    done = run_sessiondb("init", agents, database, "--json", **environment)
    report: dict[str, object] = json.loads(done.stdout)
    return done.returncode, report, done.stderr


def test_the_report_has_all_that_is_needed_to_start_adk(agents: Path, tmp_path: Path) -> None:
    package = agents / "plain"
    package.mkdir()
    (package / "__init__.py").touch()
    nested = agents / "teams" / "sales"
    nested.mkdir(parents=True)
    (nested / "root_agent.yaml").touch()
    (agents / "services.yaml").write_text(
        "services: [{scheme: session_db, type: session, class: sessiondb.DatabaseSessionService}]\n"
    )
    # It wins over services.yaml, and what it prints is no part of the report.
    (agents / "services.py").write_text(
        "from google.adk.cli.service_registry import get_service_registry\n"
        "from sessiondb import DatabaseSessionService\n"
        "print('loaded')\n"
        "def factory(uri, **kwargs):\n"
        "    return DatabaseSessionService(uri=uri, durability='normal')\n"
        "get_service_registry().register_session_service('sessiondb', factory)\n"
    )
    database = tmp_path / "my sessions?.sqlite3"
    status, report, errors = init_json(agents, database)
    assert (status, errors) == (0, "")
    uri = f"sessiondb:///{tmp_path}/my%20sessions%3F.sqlite3"
    notes = report.pop("notes")
    commands = report.pop("commands")
    assert report == {
        "services_file": str(agents / "services.yaml"),
        "change": "updated",
        "agents": ["assistant", "plain", "teams.sales"],
        "uri": uri,
        "path": str(database),
        "problem": None,
    }
    assert isinstance(commands, list)
    assert [words[-3:] for words in commands] == [["web", f"--session_service_uri={uri}", str(agents)]]
    assert isinstance(notes, list)
    assert [note.split(":")[0].split(" in ")[0] for note in notes] == [
        "the scheme 'session_db'",
        "services.py registers the scheme too, and ADK takes that one",
    ]
    assert database.is_file()


def fake_adk(folder: Path, python: Path) -> str:
    """Puts an ``adk`` of another Python first on the path; returns the path."""
    folder.mkdir(exist_ok=True)
    script = folder / "adk"
    script.write_text(f"#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n")
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_an_adk_whose_python_lacks_the_package_is_found_out(agents: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sessiondb.py").write_text("raise ImportError('not here')\n")
    python = tmp_path / "bin of another" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={hidden} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    status, report, errors = init_json(agents, tmp_path / "adk.sqlite3", PATH=fake_adk(python.parent, python))
    assert status == 1
    assert f"adk runs on {python}, which cannot import sessiondb (not here): install it there" in str(report["problem"])
    assert errors == f"Error: {report['problem']}\n"


def test_a_python_that_is_gone_is_found_out(agents: Path, tmp_path: Path) -> None:
    path = fake_adk(tmp_path / "bin", tmp_path / "gone" / "python3")
    status, report, _ = init_json(agents, tmp_path / "adk.sqlite3", PATH=path)
    assert status == 1
    assert str(report["problem"]).startswith("adk cannot run: ")


IN_MEMORY = """\
from google.adk.cli.service_registry import get_service_registry
from google.adk.sessions import InMemorySessionService

get_service_registry().register_session_service("sessiondb", lambda uri, **kwargs: InMemorySessionService())
"""


@pytest.mark.parametrize(
    ("services", "code", "problem"),
    [
        # An entry that fails takes those after it along.
        ([{**OTHER, "class": "no.such.Class"}], "", "ADK does not find the scheme; Failed to load services.yaml"),
        ([], IN_MEMORY, "services.py registers the scheme too, and ADK takes that one: google.adk.sessions"),
    ],
)
def test_what_keeps_adk_from_the_service_is_said(
    services: list[dict[str, str]], code: str, problem: str, agents: Path, tmp_path: Path
) -> None:
    (agents / "services.yaml").write_text(yaml.safe_dump({"services": services}))
    if code:
        (agents / "services.py").write_text(code)
    status, report, errors = init_json(agents, tmp_path / "adk.sqlite3")
    assert status == 1
    assert str(report["problem"]).startswith(problem)
    assert errors.count("\n") == 1


def test_a_database_that_cannot_be_opened_is_said(agents: Path, tmp_path: Path) -> None:
    database = tmp_path / "adk.sqlite3"
    database.write_text("no database, but text: " * 100)
    done = run_sessiondb("init", agents / "assistant", database)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{agents / 'assistant' / 'services.yaml'}: created", "agents: assistant"]
    assert "the service cannot be opened: sessiondb.errors." in done.stderr
    assert done.stderr.count("\n") == 1
