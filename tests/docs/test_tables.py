"""What the pages list is what the code has: calls, options, columns, errors, messages, log events, figures, limits."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sqlite3
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

import sessiondb
from sessiondb import DatabaseSessionService, ServiceStats, errors, stores, testing, transfer
from sessiondb.adk import limits
from sessiondb.cli import main
from sessiondb.model import queries, records
from sessiondb.stores.sqlite import header, schema
from tests.docs.markdown import README, ROOT, headings_of, tables_of

_DOCS = ROOT / "docs"
_PACKAGE = Path(sessiondb.__file__).parent


def _parameters(function: object) -> dict[str, inspect.Parameter]:
    assert callable(function)
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    return parameters


def test_readme_lists_every_call_with_arguments() -> None:
    (rows,) = tables_of(README, "call")
    listed: dict[str, tuple[bool, list[str]]] = {}
    for text, _ in rows:
        for awaited, name, arguments in re.findall(r"(await )?(\w+)\(([^)]*)\)", text):
            listed[name] = (bool(awaited), [argument for argument in arguments.split(", ") if argument])
    methods = {
        name: method
        for name, method in inspect.getmembers(DatabaseSessionService, inspect.isfunction)
        if not name.startswith("_")
    }
    assert listed == {
        name: (
            inspect.iscoroutinefunction(method),
            [
                name if parameter.default is parameter.empty else f"{name}={parameter.default}"
                for name, parameter in _parameters(method).items()
            ],
        )
        for name, method in methods.items()
    }


def test_readme_lists_every_option_with_default() -> None:
    (rows,) = tables_of(README, "option")
    assert {name: ast.literal_eval(default) for name, default, _ in rows} == {
        name: parameter.default for name, parameter in _parameters(DatabaseSessionService.__init__).items()
    }


@pytest.fixture
def connection(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "sessions.sqlite3")


def test_schema_page_lists_every_column_in_order(connection: sqlite3.Connection, tmp_path: Path) -> None:
    with closing(connection):
        schema.prepare(connection, tmp_path)
        found = [
            [tuple(row) for row in connection.execute("SELECT name, type FROM pragma_table_info(?)", (table,))]
            for table in ("adk_sessions", "adk_events", "adk_state")
        ]
    assert [[(name, kind) for name, kind, _ in rows] for rows in tables_of(_DOCS / "schema.md", "column")] == found


def test_schema_page_lists_every_index_and_trigger(connection: sqlite3.Connection, tmp_path: Path) -> None:
    with closing(connection):
        schema.prepare(connection, tmp_path)
        found = connection.execute(
            "SELECT name, tbl_name FROM sqlite_schema WHERE type IN ('index', 'trigger') AND sql IS NOT NULL"
        ).fetchall()
    (rows,) = tables_of(_DOCS / "schema.md", "name")
    assert sorted((name, table) for name, table, _ in rows) == sorted(found)


@pytest.mark.anyio
async def test_schema_page_says_what_columns_are_on_a_server(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database):
        pass
    page = _DOCS / "schema.md"
    (types,) = tables_of(page, "in SQLite")
    type_of = {sqlite: postgres for sqlite, postgres, _ in types}
    listed = [[(name, type_of[kind]) for name, kind, _ in rows] for rows in tables_of(page, "column")]
    (differences,) = tables_of(page, "what")
    assert [row[1].startswith("one column more, xid8") for row in differences if row[0] == "written of adk_events"] == [
        True
    ]
    listed[0].remove(("begun_after", "bigint"))
    for columns in listed[:2]:
        columns.append(("written", "xid8"))
    (added,) = tables_of(page, "index or trigger")
    with psycopg.connect(postgres_database) as connection:
        found = [
            connection.execute(
                "SELECT column_name, data_type FROM information_schema.columns"
                " WHERE table_name = %s ORDER BY ordinal_position",
                (table,),
            ).fetchall()
            for table in ("adk_sessions", "adk_events", "adk_state")
        ]
        named = connection.execute(
            "SELECT indexname, tablename FROM pg_indexes WHERE indexname LIKE 'adk%' AND indexname !~ 'key$'"
            " UNION ALL SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
        ).fetchall()
    assert listed == found
    assert sorted((name, table) for name, table, _ in added) == sorted(named)


def test_schema_page_names_the_application_id() -> None:
    assert f"`PRAGMA application_id` {header.APPLICATION_ID} " in (_DOCS / "schema.md").read_text(encoding="utf-8")


_ERRORS = [error for _, error in inspect.getmembers(errors, inspect.isclass) if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", _ERRORS, ids=lambda error: error.__name__)
def test_troubleshooting_page_explains_each_error(error: type[errors.SessionDBError]) -> None:
    page = _DOCS / "troubleshooting.md"
    if error is errors.SessionDBError:
        assert f"`sessiondb.errors.{error.__name__}`" in page.read_text(encoding="utf-8")
    else:
        assert error.__name__ in headings_of(page)


def _strings() -> list[str]:
    """Every string of the package, and every part of one between two values."""
    return [
        node.value
        for path in _PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]


def test_troubleshooting_page_quotes_existing_messages() -> None:
    *own, others = tables_of(_DOCS / "troubleshooting.md", "message")
    explained = {message for rows in own for row in rows for message in row[0].split(", ")}
    explained |= {message for message, origin, _ in others if origin == "sessiondb"}
    strings = _strings()
    assert not {message for message in explained if not any(message in text for text in strings)}


def _messages() -> Iterator[tuple[str, list[str]]]:
    """Every message given to an error: where it is given, and its parts between the values in it."""
    names = {error.__name__ for error in _ERRORS} | {"BadParameter", "ClickException", "UsageError"}
    for path in _PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    # The package's own, and those of the command (click.UsageError and the like).
                    func=ast.Name(id=name) | ast.Attribute(value=ast.Name(id="click"), attr=name),
                    args=[ast.Constant() | ast.JoinedStr() as message, *_],
                ) if name in names:
                    parts = [part.value for part in ast.walk(message) if isinstance(part, ast.Constant)]
                    yield f"{path}:{node.lineno}", [part for part in parts if isinstance(part, str)]


def test_troubleshooting_page_explains_every_message() -> None:
    explained = [
        message
        for rows in tables_of(_DOCS / "troubleshooting.md", "message")
        for row in rows
        for message in row[0].split(", ")
    ]
    messages = dict(_messages())
    assert messages
    assert not {
        place: parts
        for place, parts in messages.items()
        if not any(message in part for message in explained for part in parts)
    }


def test_operations_page_lists_every_log_event() -> None:
    (rows,) = tables_of(_DOCS / "operations.md", "event")
    found = []
    for path in _PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id="logger"), attr=level),
                    args=[ast.Constant(value=str(event))],
                    keywords=keywords,
                ):
                    found.append((event, level, ", ".join(str(keyword.arg) for keyword in keywords)))
    # Both stores have some of them in common.
    assert sorted((event, level, keys) for event, level, keys, _ in rows) == sorted(set(found))


def test_operations_page_names_existing_figures() -> None:
    (rows,) = tables_of(_DOCS / "operations.md", "watch")
    watched = {name for row in rows for name in row[0].split(", ")}
    assert watched <= set(ServiceStats.__annotations__)


def test_size_limits_on_pages_equal_the_code() -> None:
    assert limits.MAX_ID_BYTES == 4096
    assert limits.MAX_EVENT_BYTES == 64 * 2**20
    for page in (README, _DOCS / "concepts.md"):
        text = page.read_text(encoding="utf-8")
        assert "4,096 bytes" in text
        assert "64 MiB" in text


def test_command_page_lists_every_command() -> None:
    (rows,) = tables_of(_DOCS / "commands.md", "command")
    assert sorted(name for name, _ in rows) == sorted(main.commands)


def test_dependency_page_gives_each_a_reason() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    (rows,) = tables_of(_DOCS / "dependencies.md", "package")
    assert [row[0].split()[0] for row in rows] == [
        re.match(r"[\w-]+", requirement)[0]  # type: ignore[index]  # a requirement begins with a name
        for requirement in project["dependencies"]
    ]


def test_api_reference_lists_every_public_name() -> None:
    documented = set(re.findall(r"^\.\. auto\w+:: (.+)$", (_DOCS / "reference.md").read_text("utf-8"), re.MULTILINE))
    public = {f"{module.__name__}.{name}" for module in (sessiondb, transfer) for name in module.__all__}
    for module in (testing, stores):
        public |= {
            f"{module.__name__}.{name}"
            for name, thing in vars(module).items()
            if not name.startswith("_")
            and (inspect.isfunction(thing) or inspect.isclass(thing))
            and thing.__module__ == module.__name__
        }
    # A service opens its store itself, and commands are what is documented of the others.
    of_commands = (
        "open_store",
        "open_writer",
        "check",
        "holds_sessions",
        "server_script",
        "create_on_server",
        "build_index",
        "drop_index",
        "resolve_database",
    )
    public -= {f"sessiondb.stores.{name}" for name in of_commands}
    assert public <= documented


def test_api_reference_lists_every_field_of_records() -> None:
    listed = {name: fields for rows in tables_of(_DOCS / "reference.md", "record") for name, fields in rows}
    assert listed == {name: ", ".join(getattr(records, name)._fields) for name in listed}


def test_api_reference_lists_every_argument_of_queries() -> None:
    (rows,) = tables_of(_DOCS / "reference.md", "query")
    assert {name: arguments for name, arguments, _ in rows} == {
        name: ", ".join(field.name for field in dataclasses.fields(getattr(queries, name))) for name, *_ in rows
    }


def test_page_on_the_house_names_existing_files() -> None:
    named = re.findall(r"`(?:sessiondb/)?([\w/]+\.py)`", (_DOCS / "how-it-is-built.md").read_text(encoding="utf-8"))
    names = {path.relative_to(_PACKAGE).as_posix() for path in _PACKAGE.rglob("*.py")}
    assert named
    # A file without its folder is one of the room that the sentence speaks of.
    assert not {name for name in named if not any(f"/{known}".endswith(f"/{name}") for known in names)}


def test_page_on_the_house_counts_the_files_of_its_walks() -> None:
    page = (_DOCS / "how-it-is-built.md").read_text(encoding="utf-8")
    tables = list(tables_of(_DOCS / "how-it-is-built.md", "file"))
    for said, walk in (("18 modules", tables[:2]), ("13 modules", tables[2:])):
        assert said in page
        assert len({name for rows in walk for row in rows for name in row[0].split(", ")}) == int(said.split()[0])
