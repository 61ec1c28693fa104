"""``sessiondb init``: what it asks of services.yaml, and what it finds out before ADK's servers are started.

ADK itself is asked, which takes a second each time, where its answer is what is shown. Where it is what the command reads
and prints, the answer is a recorded one.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml
from click.testing import CliRunner, Result

from sessiondb.cli import main, registration, services_file
from sessiondb.cli.registration import Adk, Registration
from tests.command import run, run_sessiondb

OWN = {"scheme": "sessiondb", "type": "session", "class": "sessiondb.DatabaseSessionService"}
OTHER = {"scheme": "notes", "type": "memory", "class": "notes.Memory"}
MEMORY = {"scheme": "sessiondb", "type": "memory", "class": "sessiondb.MemoryService"}
SESSION_ONLY = """\
services:
  - scheme: sessiondb
    type: session
    class: sessiondb.DatabaseSessionService
"""
OWN_FILE = f"""\
{SESSION_ONLY}\
  - scheme: sessiondb
    type: memory
    class: sessiondb.MemoryService
"""

MODULE = """\
from google.adk.sessions import InMemorySessionService
from sessiondb import DatabaseSessionService

class Memory: pass
class Durable(DatabaseSessionService): pass
class Sessions(InMemorySessionService):
    def __init__(self, **options): super().__init__()
"""


OPENS = Registration(None)
UNKNOWN = Registration("ADK does not find the scheme", is_unknown=True)
NO_CLASS = Registration(
    "ADK does not find the scheme; Failed to load services.yaml from agents: Could not import class no.such.Sessions: No"
    " module named 'no'",
    is_unknown=True,
)
OTHER_IN_PYTHON = Registration("services.py registers the scheme, and ADK takes that one: notes.Sessions")
NO_SERVICE = Registration("the service cannot be opened: TypeError: Memory() takes no arguments")
"""What came of real checks."""

Answers: TypeAlias = Callable[..., None]


@pytest.fixture
def adk_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answers]:
    """Called with recorded answers, it has the next checks come to them; those after are real. Each must be asked for."""
    expected: list[Registration] = []
    ask = registration.check

    def check(adk: Adk, agents_dir: Path, uri: str, password: str | None, kind: services_file.Kind) -> Registration:
        assert agents_dir.is_absolute()
        assert uri.startswith("sessiondb:////")
        assert password is None
        return expected.pop(0) if expected else ask(adk, agents_dir, uri, kind=kind)

    def answer(*answers: Registration) -> None:
        expected.extend(answers)

    monkeypatch.setattr(registration, "check", check)
    yield answer
    assert expected == []


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    """A folder with one agent, and a module with classes to register."""
    folder = tmp_path / "agents"
    (folder / "assistant").mkdir(parents=True)
    (folder / "assistant" / "agent.py").touch()
    (folder / "notes.py").write_text(MODULE)
    return folder


def init(folder: Path, *options: str) -> Result:
    """Runs the command in this process; a question to ADK itself has one of its own."""
    return CliRunner().invoke(main, ["init", str(folder), str(folder.parent / "adk.sqlite3"), *options])


def report_of(done: Result) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def fails_in_one_line(done: Result) -> bool:
    return done.exit_code == 1 and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1


# --- No services.yaml ------------------------------------------------------------------------------------------------


def test_a_missing_file_is_created_once_and_then_only_checked(agents: Path) -> None:
    file, database = agents / "services.yaml", agents.parent / "adk.sqlite3"
    for change in ("created", "unchanged"):
        done = init(agents)
        assert (done.exit_code, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[:3] == [
            f"{file}: {change}",
            "agents: assistant",
            f"ADK opens {database} with this package. Start it:",
        ]
        assert lines[-1].endswith(f" web --session_service_uri=sessiondb:///{database} {agents}")
        assert file.read_text() == OWN_FILE
        assert database.is_file()


def test_a_file_that_appears_meanwhile_is_not_overwritten(agents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, look = agents / "services.yaml", services_file.plan

    def look_too_early(folder: Path, scheme: str, kinds: Sequence[services_file.Kind]) -> services_file.ServicesFile:
        found = look(folder, scheme, kinds)
        file.write_text("services: []  # of another program\n")
        return found

    monkeypatch.setattr(services_file, "plan", look_too_early)
    done = init(agents)
    assert fails_in_one_line(done)
    assert "File exists" in done.stderr
    assert done.stdout == ""
    assert file.read_text() == "services: []  # of another program\n"


def test_a_link_that_leads_nowhere_is_not_followed(agents: Path, tmp_path: Path) -> None:
    (agents / "services.yaml").symlink_to(tmp_path / "shared.yaml")
    done = init(agents)
    assert fails_in_one_line(done)
    assert f"{agents / 'services.yaml'} is a symbolic link that leads nowhere" in done.stderr
    assert not (tmp_path / "shared.yaml").exists()


# --- A services.yaml that lacks the entry ----------------------------------------------------------------------------

AT_END = "at the end"
IN_PLACE = "in place of the key services"
IN_LIST = "at the end of the list services"


@pytest.mark.parametrize(
    ("text", "place", "pasted", "others"),
    [
        ("", AT_END, "{}", []),
        ("# nothing yet\n", AT_END, "# nothing yet\n{}", []),
        ("more: [services]\n", AT_END, "more: [services]\n{}", []),
        ("services:\n", IN_PLACE, "{}", []),
        ("services: []  # none\nmore: 1\n", IN_PLACE, "{}more: 1\n", []),
        (
            "# ours\nservices:  # all\n- scheme: notes\n  type: memory\n  class: notes.Memory\n",
            IN_LIST,
            "# ours\nservices:  # all\n- scheme: notes\n  type: memory\n  class: notes.Memory\n{}",
            [OTHER],
        ),
        (
            "\ufeffservices:\r\n    - scheme: notes\r\n      type: memory\r\n      class: notes.Memory\r\n",
            IN_LIST,
            "\ufeffservices:\r\n    - scheme: notes\r\n      type: memory\r\n      class: notes.Memory\r\n{}",
            [OTHER],
        ),
        (
            "services: [{scheme: notes, type: memory, class: notes.Memory}]\n",
            IN_LIST,
            "services: [{scheme: notes, type: memory, class: notes.Memory}, {}]\n",
            [OTHER],
        ),
        (
            "list: &all [{scheme: notes, type: memory, class: notes.Memory}]\nservices: *all\n",
            IN_LIST,
            "list: &all [{scheme: notes, type: memory, class: notes.Memory}, {}]\nservices: *all\n",
            [OTHER],
        ),
    ],
)
def test_the_lines_that_a_file_lacks_are_printed_and_make_the_command_succeed(
    *, text: str, place: str, pasted: str, others: list[dict[str, str]], agents: Path, adk_answers: Answers
) -> None:
    if not text.startswith("# ours"):
        adk_answers(UNKNOWN, OPENS)
    file = agents / "services.yaml"
    file.write_bytes(text.encode())
    done = init(agents, "--json")
    assert fails_in_one_line(done)
    assert f"Error: {file} does not register the scheme sessiondb; ADK does not find the scheme" in done.stderr
    report = report_of(done)
    assert done.stderr == f"Error: {report['problem']}\n"
    assert (report["services_file"], report["change"], report["place"]) == (str(file), "needed", place)
    assert file.read_bytes() == text.encode()

    file.write_bytes(pasted.replace("{}", report["lines"]).encode())
    assert yaml.safe_load(file.read_text())["services"] == [*others, OWN]
    done = init(agents, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    report = report_of(done)
    assert [report[key] for key in ("change", "lines", "place", "problem")] == ["unchanged", None, None, None]


def test_the_text_says_where_the_lines_go_and_how_to_go_on(agents: Path, adk_answers: Answers) -> None:
    adk_answers(UNKNOWN)
    file = agents / "services.yml"
    file.write_text("# nothing yet\n")
    done = init(agents)
    assert fails_in_one_line(done)
    assert done.stdout == (
        f"{file}: needed\nagents: assistant\nPut these lines into {file}, at the end:\n\n"
        f"{SESSION_ONLY}\nThen run this command again, which checks the result.\n"
    )
    assert not (agents / "services.yaml").exists()


@pytest.mark.parametrize(
    ("name", "answer"), [("notes.Sessions", None), ("no.such.Sessions", NO_CLASS), ("notes.Memory", NO_SERVICE)]
)
def test_another_class_is_shown_with_what_to_put_in_its_place(
    name: str, answer: Registration | None, agents: Path, adk_answers: Answers
) -> None:
    """A class that works, one that cannot be imported, and one that cannot be called."""
    if answer is not None:
        adk_answers(answer, OPENS)
    entry = f"  - scheme: sessiondb  # mine\n    type: session\n    class: '{name}'\n"
    file = agents / "services.yaml"
    file.write_text(f"services:\n{entry}")
    done = init(agents, "--json")
    assert fails_in_one_line(done)
    assert f"{file} registers the scheme sessiondb for {name}; " in done.stderr
    report = report_of(done)
    assert report["change"] == "needed"
    assert report["place"] == f"in place of the entry {{scheme: sessiondb, type: session, class: {name}}}"
    assert file.read_text() == f"services:\n{entry}"

    file.write_text(f"services:\n{report['lines']}")
    assert file.read_text() == SESSION_ONLY
    assert init(agents).exit_code == 0


def test_of_two_registrations_the_last_one_counts_as_for_adk(agents: Path, adk_answers: Answers) -> None:
    adk_answers(OPENS)
    own = yaml.safe_dump({"services": [OWN]})
    other = own.replace(OWN["class"], "notes.Sessions")
    (agents / "services.yaml").write_text(other)
    (agents / "services.yml").write_text(own)
    done = init(agents, "--json")
    assert (done.exit_code, report_of(done)["change"]) == (0, "unchanged")
    assert report_of(done)["services_file"] == str(agents / "services.yml")
    (agents / "services.yaml").write_text(own)
    (agents / "services.yml").write_text(other)
    done = init(agents, "--json")
    assert (done.exit_code, report_of(done)["change"]) == (1, "needed")
    assert report_of(done)["services_file"] == str(agents / "services.yml")


def test_a_class_of_ones_own_that_is_a_kind_of_this_packages_will_do(agents: Path) -> None:
    file = agents / "services.yaml"
    file.write_text(yaml.safe_dump({"services": [{**OWN, "class": "notes.Durable"}]}))
    done = init(agents, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert [report_of(done)[key] for key in ("change", "lines", "problem")] == ["unchanged", None, None]


def test_a_file_behind_a_link_is_read(agents: Path, tmp_path: Path, adk_answers: Answers) -> None:
    adk_answers(OPENS, UNKNOWN)
    target = tmp_path / "shared.yaml"
    target.write_text(OWN_FILE)
    (agents / "services.yaml").symlink_to(target)
    assert init(agents).exit_code == 0
    target.write_text("services:\n")
    assert report_of(init(agents, "--json"))["change"] == "needed"
    assert target.read_text() == "services:\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"services: [\n", "is not YAML: .* in line 2, column 1"),
        (b"services: \0\n", "is not YAML: unacceptable character #x0000"),
        (b"services:\n- scheme: notes\n...\n--- {}\n", "is not YAML: but found another document in line 4"),
        (b"- scheme: notes\n", "must hold a mapping"),
        (b"services: {}\n", "must be a list"),
        (b"services: [notes]\n", "must be a list"),
        (b"services: \xff\n", "cannot be read"),
        (b"since: 2026-02-31\n", "cannot be read: day is out of range"),
        (None, "is not a regular file"),
    ],
)
def test_a_file_that_adk_cannot_use_fails_in_one_line(content: bytes | None, reason: str, agents: Path) -> None:
    file = agents / "services.yaml"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    done = init(agents)
    assert fails_in_one_line(done)
    assert done.stdout == ""
    assert re.search(reason, done.stderr)
    assert str(file) in done.stderr
    assert content is None or file.read_bytes() == content
    assert not (agents.parent / "adk.sqlite3").exists()


def test_schemes_that_no_uri_leads_to_are_noticed(agents: Path, adk_answers: Answers) -> None:
    adk_answers(UNKNOWN)
    schemes = ["session_db", "SessionDB", "session db"]
    (agents / "services.yaml").write_text(yaml.safe_dump({"services": [{**OWN, "scheme": name} for name in schemes]}))
    done = init(agents)
    assert done.exit_code == 1
    notes = [line.partition(" cannot be reached")[0] for line in done.stdout.splitlines() if line.startswith("note: ")]
    assert notes == [f"note: the scheme {name!r} in {agents / 'services.yaml'}" for name in schemes]


@pytest.mark.parametrize(
    ("text", "answers"), [(None, [OPENS]), ("", [UNKNOWN]), ("services: [\n", [])], ids=["created", "needed", "refused"]
)
def test_what_a_terminal_would_obey_is_written_out(
    text: str | None, answers: list[Registration], tmp_path: Path, adk_answers: Answers
) -> None:
    adk_answers(*answers)
    agents = tmp_path / "bell\x07"
    (agents / "assistant").mkdir(parents=True)
    (agents / "assistant" / "agent.py").touch()
    if text is not None:
        (agents / "services.yaml").write_text(text)
    done = init(agents)
    assert done.exit_code == (text is not None)
    assert "\x07" not in done.output
    assert "bell\\x07/services.yaml" in done.output


# --- Memory ----------------------------------------------------------------------------------------------------------


def test_memory_is_checked_and_in_the_command_if_it_is_asked_for(agents: Path) -> None:
    done = init(agents, "--memory")
    assert (done.exit_code, done.stderr) == (0, "")
    uri = f"sessiondb:///{agents.parent / 'adk.sqlite3'}"
    assert done.stdout.endswith(f" web --session_service_uri={uri} --memory_service_uri={uri} {agents}\n")
    assert (agents / "services.yaml").read_text() == OWN_FILE


def test_memory_that_a_file_lacks_is_told(agents: Path, adk_answers: Answers) -> None:
    adk_answers(OPENS, UNKNOWN, OPENS, OPENS)
    file = agents / "services.yaml"
    file.write_text(SESSION_ONLY)
    done = init(agents, "--memory", "--json")
    assert fails_in_one_line(done)
    assert f"{file} does not register the scheme sessiondb for memory; ADK does not find" in done.stderr
    assert report_of(done)["place"] == IN_LIST
    file.write_text(SESSION_ONLY + report_of(done)["lines"])
    assert file.read_text() == OWN_FILE
    assert init(agents, "--memory").exit_code == 0


def test_both_entries_that_a_file_lacks_are_printed(agents: Path, adk_answers: Answers) -> None:
    adk_answers(UNKNOWN)
    (agents / "services.yaml").write_text("services: [{scheme: notes, type: memory, class: notes.Memory}]\n")
    done = init(agents, "--memory", "--json")
    assert fails_in_one_line(done)
    assert "does not register the scheme sessiondb; " in done.stderr
    lines = report_of(done)["lines"]
    assert yaml.safe_load(f"services: [{lines}]")["services"] == [OWN, MEMORY]


def test_another_class_for_memory_is_shown(agents: Path) -> None:
    file = agents / "services.yaml"
    file.write_text(OWN_FILE.replace(MEMORY["class"], "notes.Memory"))
    assert init(agents).exit_code == 0
    done = init(agents, "--memory", "--json")
    assert fails_in_one_line(done)
    assert f"{file} registers the scheme sessiondb for notes.Memory; the service cannot be opened" in done.stderr
    assert report_of(done)["place"] == "in place of the entry {scheme: sessiondb, type: memory, class: notes.Memory}"


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
    assert "agent.py or __init__.py that defines root_agent" in done.stderr
    assert "--example writes one" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_is_missing_is_a_wrong_call_and_is_not_created(tmp_path: Path) -> None:
    done = init(tmp_path / "agents")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "does not exist" in done.stderr
    assert "--example writes one" in done.stderr
    assert list(tmp_path.iterdir()) == []


LOADS = """\
import sys
from google.adk.cli.utils.agent_loader import AgentLoader
above, own = AgentLoader(sys.argv[1]), AgentLoader(sys.argv[1] + "/assistant")
print(above.list_agents(), above.load_agent("assistant").name, own.load_agent("assistant").tools[0].__name__)
"""


def test_the_example_is_an_agent_that_adk_loads(tmp_path: Path) -> None:
    agents = tmp_path / "new" / "agents"
    done = init(agents, "--example")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:3] == [
        f"{agents / 'assistant'}: created; its model wants a key in GOOGLE_API_KEY",
        f"{agents / 'services.yaml'}: created",
        "agents: assistant",
    ]
    names = sorted(str(path.relative_to(agents)) for path in agents.rglob("*"))
    assert names == ["assistant", "assistant/__init__.py", "assistant/agent.py", "services.yaml"]
    loaded = run([sys.executable, "-W", "ignore", "-c", LOADS, str(agents)])
    assert (loaded.returncode, loaded.stdout) == (0, "['assistant'] assistant remember_city\n"), loaded.stderr


def test_the_example_is_put_beside_other_agents_and_reported(tmp_path: Path, adk_answers: Answers) -> None:
    adk_answers(OPENS)
    (tmp_path / "agents" / "zoo").mkdir(parents=True)
    (tmp_path / "agents" / "zoo" / "agent.py").touch()
    report = report_of(init(tmp_path / "agents", "--example", "--json"))
    assert (report["agents"], report["example"]) == (["assistant", "zoo"], str(tmp_path / "agents" / "assistant"))


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_the_example_overwrites_nothing(kind: str, tmp_path: Path) -> None:
    agents = tmp_path / "agents"
    agents.mkdir()
    taken = agents / "assistant"
    if kind == "folder":
        taken.mkdir()
    elif kind == "file":
        taken.write_text("mine")
    else:
        taken.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    done = init(agents, "--example")
    assert fails_in_one_line(done)
    assert f"{taken} exists, and --example overwrites nothing" in done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert kind != "file" or taken.read_text() == "mine"


def test_the_example_is_not_put_into_an_agent(agents: Path) -> None:
    done = init(agents / "assistant", "--example")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "is an agent itself" in done.stderr
    assert [path.name for path in (agents / "assistant").iterdir()] == ["agent.py"]


def test_a_folder_whose_name_adk_cannot_import_is_noticed(agents: Path, adk_answers: Answers) -> None:
    adk_answers(OPENS)
    (agents / "my-bot").mkdir()
    (agents / "my-bot" / "agent.py").touch()
    notes = report_of(init(agents, "--json"))["notes"]
    assert notes == ["ADK cannot load the agent 'my-bot': the name of its folder may have letters, digits and _ only"]


def init_json(agents: Path, database: Path | str, **environment: str) -> tuple[int, dict[str, object], str]:
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
    # It registers what services.yaml lacks, and what it prints is no part of the report.
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
        "change": "unchanged",
        "lines": None,
        "place": None,
        "agents": ["assistant", "plain", "teams.sales"],
        "uri": uri,
        "path": str(database),
        "example": None,
        "problem": None,
    }
    assert isinstance(commands, list)
    assert [words[-3:] for words in commands] == [["web", f"--session_service_uri={uri}", str(agents)]]
    assert isinstance(notes, list)
    assert [note.split(":")[0].split(" in ")[0] for note in notes] == [
        "the scheme 'session_db'",
        "services.py registers the scheme, and ADK takes that one",
    ]
    assert database.is_file()


def test_a_server_has_a_scheme_of_its_own(agents: Path, postgres_database: str) -> None:
    url = postgres_database.replace("postgres@", "postgres:hunter2@") + "?schema=theirs"
    uri = f"sessiondb+{postgres_database}?schema=theirs"
    for change in ("created", "unchanged"):
        done = run_sessiondb("init", agents, url, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        assert "hunter2" not in done.stdout
        report = json.loads(done.stdout)
        assert (report["change"], report["uri"], report["problem"]) == (change, uri, None)
        assert report["commands"][0][-2] == f"--session_service_uri={uri}"
        assert [note for note in report["notes"] if "PGPASSWORD" in note]
    # ADK has opened it.
    assert run_sessiondb("list", f"{postgres_database}?schema=theirs").returncode == 0
    registered = yaml.safe_load((agents / "services.yaml").read_text())["services"]
    assert [(entry["scheme"], entry["type"]) for entry in registered] == [
        ("sessiondb", "session"),
        ("sessiondb", "memory"),
        ("sessiondb+postgresql", "session"),
        ("sessiondb+postgresql", "memory"),
    ]
    # A file that knows files only.
    (agents / "services.yaml").write_text(
        "services:\n- {scheme: sessiondb, type: session, class: sessiondb.DatabaseSessionService}\n"
    )
    status, report, errors = init_json(agents, url)
    assert (status, report["change"]) == (1, "needed")
    assert "scheme: sessiondb+postgresql" in str(report["lines"])
    assert "does not register the scheme sessiondb+postgresql" in errors


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


FACTORY = """\
from google.adk.cli.service_registry import get_service_registry
from notes import Durable, Sessions

get_service_registry().register_session_service("sessiondb", lambda uri, **options: {}(uri=uri))
"""


@pytest.mark.parametrize(
    ("services", "code", "answer", "change", "problem"),
    [
        # An entry that fails takes those after it along.
        (
            [{**OTHER, "class": "no.such.Class"}, OWN],
            "",
            None,
            "unchanged",
            "ADK does not find the scheme; Failed to load services.yaml",
        ),
        (
            [{**OTHER, "class": "no.such.Class"}],
            "",
            NO_CLASS,
            "needed",
            "{file} does not register the scheme sessiondb; ADK does not find the scheme; Failed to load services.yaml",
        ),
        (
            [OTHER],
            "1 / 0",
            None,
            "needed",
            "{file} does not register the scheme sessiondb; ADK does not find the scheme; Failed to load services.py",
        ),
        # The entry would change nothing.
        (
            [OTHER],
            FACTORY.format("Sessions"),
            None,
            "unchanged",
            "services.py registers the scheme, and ADK takes that one: notes.Sessions",
        ),
        (
            [OWN],
            FACTORY.format("Sessions"),
            OTHER_IN_PYTHON,
            "unchanged",
            "services.py registers the scheme, and ADK takes that one: notes.Sessions",
        ),
    ],
)
def test_what_keeps_adk_from_the_service_is_said(
    *,
    services: list[dict[str, str]],
    code: str,
    answer: Registration | None,
    change: str,
    problem: str,
    agents: Path,
    adk_answers: Answers,
) -> None:
    if answer is not None:
        adk_answers(answer)
    file = agents / "services.yaml"
    file.write_text(yaml.safe_dump({"services": services}))
    if code:
        (agents / "services.py").write_text(code)
    done = init(agents, "--json")
    assert fails_in_one_line(done)
    report = report_of(done)
    assert report["problem"].startswith(problem.format(file=file))
    assert (report["change"], bool(report["lines"])) == (change, change == "needed")


def test_no_lines_are_asked_for_if_services_py_leads_to_a_database_that_cannot_be_opened(agents: Path) -> None:
    (agents.parent / "adk.sqlite3").write_text("no database, but text: " * 100)
    (agents / "services.yaml").write_text(yaml.safe_dump({"services": [OTHER]}))
    (agents / "services.py").write_text(FACTORY.format("Durable"))
    done = init(agents, "--json")
    assert fails_in_one_line(done)
    report = report_of(done)
    assert (report["change"], report["lines"]) == ("unchanged", None)
    assert report["problem"].startswith("the service cannot be opened: sessiondb.errors.")


def test_a_database_that_cannot_be_opened_is_said(agents: Path, tmp_path: Path) -> None:
    database = tmp_path / "adk.sqlite3"
    database.write_text("no database, but text: " * 100)
    done = run_sessiondb("init", agents / "assistant", database)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [f"{agents / 'assistant' / 'services.yaml'}: created", "agents: assistant"]
    assert "the service cannot be opened: sessiondb.errors." in done.stderr
    assert done.stderr.count("\n") == 1
