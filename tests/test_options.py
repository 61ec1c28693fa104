"""Where the file is, what it may be, and how it is to be kept."""

from __future__ import annotations

import glob
import inspect
import os
import pwd
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from google.adk.events import Event

from sessiondb import DatabaseSessionService, Retention, errors
from sessiondb.location import ServerLocation, resolve_location, resolve_path
from sessiondb.model.queries import MeasureStore
from sessiondb.options import ServiceOptions, StoreOptions
from sessiondb.stores import open_reader

pytestmark = pytest.mark.anyio

APP, USER, SESSION = "my_app", "user_123", "sess_abc"

# Per option: values that are taken, values that are not, and what the error says about those.
OPTIONS: dict[str, tuple[list[Any], list[Any], str]] = {
    "durability": (["full", "normal"], ["off", "FULL", "", None, 1, ["full"]], "must be one of 'full', 'normal'"),
    "readers": ([1, 64], [0, -1, 65], "must be from 1 to 64"),
    "max_queue": ([1, 10_000_000], [0, 10_000_001], "must be from 1 to 10,000,000"),
    "max_batch": ([1, 1_024], [0, 1_025], "must be from 1 to 1,024"),
    "busy_timeout": ([0.001, 1, 2_000_000], [0, -1, 0.0, 2_000_001], "must be above 0"),
    "on_stale": (["reject", "append"], ["ignore", None, True], "must be one of 'reject', 'append'"),
    "log_cache": (
        ["copy", "shallow", "share", "off"],
        ["on", None, False],
        "must be one of 'copy', 'shallow', 'share', 'off'",
    ),
    "log_cache_bytes": ([0, 2**62], [-1, 2**62 + 1], "must be from 0 to"),
    "follow_symlinks": ([True, False], [1, 0, None, "yes"], "must be True or False"),
    "none_in_delta": (["delete", "store"], ["keep", None, True], "must be one of 'delete', 'store'"),
    "before_store": ([None, lambda event: event], ["redact", True, 1], "must be a function or None"),
    "retention": ([None, Retention(max_events=1)], [90, {"idle": 90}, True], "must be a Retention or None"),
    "index": ([None, "text"], ["words", "", True], "must be one of 'text'"),
}
NO_NUMBERS = ["4", None, True, [4]]

# Options that say how to reach a server, in the order of the constructor.
SERVER_OPTIONS: dict[str, Any] = {"schema": "s", "password": "p", "transaction_pooling": True}


def test_every_option_has_values_to_try() -> None:
    taken = {field.name for options in (StoreOptions, ServiceOptions) for field in fields(options)}
    parameters = set(inspect.signature(DatabaseSessionService).parameters)
    assert taken == set(OPTIONS) == parameters - {"path", "uri", "agents_dir"} - set(SERVER_OPTIONS)


def test_option_defaults_agree_everywhere() -> None:
    parameters = inspect.signature(DatabaseSessionService).parameters
    for options in (StoreOptions(), ServiceOptions()):
        for field in fields(options):
            assert parameters[field.name].default == getattr(options, field.name)
            assert parameters[field.name].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize(
    ("option", "value"), [(option, value) for option, (taken, _, _) in OPTIONS.items() for value in taken]
)
async def test_option_value_is_taken(database_path: Path, option: str, value: Any) -> None:
    async with DatabaseSessionService(database_path, **{option: value}) as service:
        created = await service.create_session(APP, USER, SESSION, {"own": 1})
        assert await service.get_session(APP, USER, SESSION) == created


@pytest.mark.parametrize(
    ("option", "value"),
    [(option, value) for option, (_, refused, _) in OPTIONS.items() for value in refused]
    + [
        (option, value)
        for option in ("readers", "max_queue", "max_batch", "log_cache_bytes")
        for value in (*NO_NUMBERS, 1.0)
    ]
    + [("busy_timeout", value) for value in (*NO_NUMBERS, float("nan"), float("inf"))],
)
def test_option_value_nan_or_out_of_range_is_refused(database_path: Path, option: str, value: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match=option) as refusal:
        DatabaseSessionService(database_path, **{option: value})
    assert repr(value) in str(refusal.value)
    _, refused, says = OPTIONS[option]
    if value in refused and value is not True:
        assert says in str(refusal.value)
    assert isinstance(refusal.value, ValueError)
    # Nothing was begun.
    assert not database_path.exists()


def test_hook_that_is_a_coroutine_function_is_refused(database_path: Path) -> None:
    async def hook(event: Event) -> Event:
        return event

    with pytest.raises(errors.ConfigurationError, match="must be a plain function"):
        DatabaseSessionService(database_path, before_store=hook)  # type: ignore[arg-type]  # that is the point
    assert not database_path.exists()


def test_options_are_keyword_only(database_path: Path) -> None:
    with pytest.raises(TypeError):
        DatabaseSessionService(database_path, "full")  # type: ignore[call-arg]  # that is the point
    with pytest.raises(TypeError, match="durable"):
        DatabaseSessionService(database_path, durable=True)  # type: ignore[call-arg]  # that is the point


def test_unknown_option_by_way_of_the_registry_is_configuration_error(database_path: Path) -> None:
    for more in ({}, {"agents_dir": "agents"}):
        arguments: dict[str, Any] = {"uri": f"sessiondb:///{database_path}", "pool_size": 5, "readers": 2, **more}
        with pytest.raises(errors.ConfigurationError, match="no option 'pool_size'") as refusal:
            DatabaseSessionService(**arguments)
        assert str(refusal.value).endswith(f"are {', '.join([*OPTIONS, *SERVER_OPTIONS])}")
    assert not database_path.exists()


@pytest.mark.parametrize("name", SERVER_OPTIONS)
def test_option_of_a_server_is_refused_for_a_file(database_path: Path, name: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=f"{name} is for a PostgreSQL server"):
        DatabaseSessionService(database_path, **{name: SERVER_OPTIONS[name]})
    assert not database_path.exists()


SERVERS: dict[str, tuple[str, str, str]] = {
    # What is given, what it is called, and what libpq is given.
    "plain": ("postgresql://u:pw@h/db", "postgresql://u@h/db", "postgresql://u:pw@h/db"),
    "postgres": ("postgres://h/db", "postgresql://h/db", "postgres://h/db"),
    "registry": ("sessiondb+postgresql://h/db", "postgresql://h/db", "postgresql://h/db"),
    "several hosts": (
        "postgresql://u:pw@a:1,b:2/db?target_session_attrs=any",
        "postgresql://u@a:1,b:2/db",
        "postgresql://u:pw@a:1,b:2/db?target_session_attrs=any",
    ),
    "a schema": (
        "postgresql://h/db?schema=s&sslmode=require",
        "postgresql://h/db?schema=s",
        "postgresql://h/db?sslmode=require",
    ),
    "a socket": (
        "postgresql:///db?host=/tmp/s&password=pw",
        "postgresql:///db?host=/tmp/s",
        "postgresql:///db?host=%2Ftmp%2Fs&password=pw",
    ),
    "a pooler": ("postgresql://h/db?transaction_pooling=true", "postgresql://h/db", "postgresql://h/db"),
    "coded letters": (
        "postgresql://u%40x:p%2Fw@h/d%20b",
        "postgresql://u%40x@h/d%20b",
        "postgresql://u%40x:p%2Fw@h/d%20b",
    ),
}


@pytest.mark.parametrize("case", SERVERS)
def test_server_is_named_without_password(case: str) -> None:
    given, named, url = SERVERS[case]
    found = resolve_location(given)
    assert isinstance(found, ServerLocation)
    assert (str(found), repr(found), found.url) == (named, named, url)
    assert found.pooled == (case == "a pooler")


REFUSED_SERVERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "no slashes": ("postgresql:db", {}, "begins with postgresql://"),
    "a bracket": ("postgresql://[h/db", {}, "malformed"),
    "a schema with a quote": ("postgresql://h/db", {"schema": 's"; DROP TABLE x; --'}, "cannot be a schema"),
    "an empty schema": ("postgresql://h/db?schema=", {}, "cannot be a schema"),
    "two schemas": ("postgresql://h/db?schema=a", {"schema": "b"}, "two different schemas"),
    "a password of bytes": ("postgresql://h/db", {"password": b"pw"}, "string or be callable"),
    "a pooler or not": ("postgresql://h/db?transaction_pooling=1", {}, "must be true or false"),
}


@pytest.mark.parametrize("case", REFUSED_SERVERS)
def test_server_that_cannot_be_one_is_refused(case: str) -> None:
    given, options, message = REFUSED_SERVERS[case]
    with pytest.raises(errors.ConfigurationError, match=message):
        resolve_location(given, **options)


# --- Paths ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, without a path in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SESSIONDB_PATH", raising=False)
    return tmp_path


def _entries(folder: Path, pattern: str = "*") -> list[Path]:
    return list(folder.glob(glob.escape(pattern) if pattern != "*" else pattern)) if folder.exists() else []


async def _stores_at(place: Path, make: Callable[[], DatabaseSessionService]) -> None:
    assert not _entries(place.parent, place.name)
    async with make() as service:
        await service.create_session(APP, USER, SESSION)
        assert str(place) in repr(service)
    assert _entries(place.parent, place.name) == [place]
    with closing(sqlite3.connect(place)) as connection:
        assert connection.execute("SELECT session_id FROM adk_sessions").fetchall() == [(SESSION,)]


class Where(os.PathLike[str]):
    """A path-like object that is no pathlib path."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __fspath__(self) -> str:
        return self._path


async def test_default_path_is_dot_adk(workplace: Path) -> None:
    await _stores_at(workplace / ".adk" / "adk.sqlite3", DatabaseSessionService)


async def test_path_from_environment_variable(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONDB_PATH", "from/environment.db")
    await _stores_at(workplace / "from" / "environment.db", DatabaseSessionService)
    await _stores_at(workplace / "given.db", lambda: DatabaseSessionService("given.db"))
    monkeypatch.setenv("SESSIONDB_PATH", f"sqlite:///{workplace}/url.db")
    await _stores_at(workplace / "url.db", DatabaseSessionService)
    monkeypatch.setenv("SESSIONDB_PATH", "")
    await _stores_at(workplace / ".adk" / "adk.sqlite3", DatabaseSessionService)


@pytest.mark.parametrize("scheme", ["sqlite", "sessiondb"])
async def test_path_from_sqlite_and_sessiondb_url(workplace: Path, scheme: str) -> None:
    await _stores_at(workplace / "a" / "b.db", lambda: DatabaseSessionService(f"{scheme}:///a/b.db"))
    await _stores_at(workplace / "c.db", lambda: DatabaseSessionService(f"{scheme}:///{workplace}/c.db"))
    await _stores_at(workplace / "d.db", lambda: DatabaseSessionService(uri=f"{scheme}:///d.db", agents_dir="agents"))
    await _stores_at(workplace / "a ?#%.db", lambda: DatabaseSessionService(f"{scheme}:///a%20%3F%23%25.db"))


@pytest.mark.parametrize(
    "name", ["plain.db", "with space.db", "grün.db", "50%.db", "a?b.db", "a#b.db", "a%20b.db", "a'b.db", "a:b.db"]
)
async def test_path_with_odd_characters_is_taken_as_it_is(workplace: Path, name: str) -> None:
    await _stores_at(workplace / "text" / name, lambda: DatabaseSessionService(f"text/{name}"))
    await _stores_at(workplace / "absolute" / name, lambda: DatabaseSessionService(str(workplace / "absolute" / name)))
    await _stores_at(workplace / "path" / name, lambda: DatabaseSessionService(Path("path") / name))
    await _stores_at(workplace / "like" / name, lambda: DatabaseSessionService(Where(f"like/{name}")))


async def test_path_object_is_never_a_url(workplace: Path) -> None:
    await _stores_at(workplace / "sqlite:" / "x.db", lambda: DatabaseSessionService(Path("sqlite:///x.db")))


async def test_relative_path_survives_chdir(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (workplace / "elsewhere").mkdir()
    async with DatabaseSessionService("here.db") as service:
        monkeypatch.chdir(workplace / "elsewhere")
        await service.create_session(APP, USER, SESSION)
        assert await service.get_session(APP, USER, SESSION) is not None
    assert _entries(workplace / "elsewhere") == []


async def test_path_may_go_up_more_often_than_it_is_deep(workplace: Path) -> None:
    up = "/".join([".."] * (len(workplace.parts) + 2))
    async with DatabaseSessionService(f"{up}{workplace}/sessions.db") as service:
        await service.create_session(APP, USER, SESSION)
    assert (workplace / "sessions.db").is_file()


def test_path_up_from_a_symbolic_link_is_left_to_the_file_system(workplace: Path) -> None:
    (workplace / "deep" / "deeper").mkdir(parents=True)
    (workplace / "link").symlink_to("deep/deeper")
    through = workplace / "link" / ".." / "sessions.db"
    assert resolve_path(through, None) == through


@pytest.mark.parametrize("memory", [":memory:", "sqlite:///:memory:", "sessiondb:///:memory:", Path(":memory:")])
async def test_memory_database_is_private_and_removed(workplace: Path, memory: str | Path) -> None:
    async with DatabaseSessionService(memory) as one, DatabaseSessionService(memory) as other:
        created = await one.create_session(APP, USER, SESSION, {"own": 1})
        assert await one.get_session(APP, USER, SESSION) == created
        assert await other.get_session(APP, USER, SESSION) is None
        assert one.get_stats()["sessions"] == 1
        one.vacuum()
        held = [Path(repr(service).split("'")[1]) for service in (one, other)]
        assert all(path.exists() for path in held)
    assert not any(path.parent.exists() for path in held)
    assert _entries(workplace) == []


@pytest.fixture
def home(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder beside which the working directory is."""
    (workplace / "home").mkdir()
    (workplace / "work").mkdir()
    monkeypatch.setenv("HOME", str(workplace / "home"))
    monkeypatch.chdir(workplace / "work")
    return workplace / "home"


@pytest.mark.parametrize(
    "given",
    ["~/x.db", Path("~/x.db"), Where("~/x.db"), "sqlite:///~/x.db", "sessiondb:///~/x.db", "sessiondb:///%7E/x.db"],
    ids=["text", "path", "path-like", "sqlite", "sessiondb", "escaped"],
)
async def test_tilde_in_path_or_url_is_the_home_folder(home: Path, given: Any) -> None:
    """Seen failing while a folder named ``~`` was created."""
    await _stores_at(home / "x.db", lambda: DatabaseSessionService(given))
    assert _entries(Path.cwd()) == []


async def test_tilde_in_uri_environment_and_backup_is_the_home_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _stores_at(home / "a.db", lambda: DatabaseSessionService(uri="sessiondb:///~/a.db", agents_dir="agents"))
    monkeypatch.setenv("SESSIONDB_PATH", "~/b.db")
    await _stores_at(home / "b.db", DatabaseSessionService)
    async with DatabaseSessionService() as service:
        assert (await service.backup("~/c.db")).path == home / "c.db"
    with open_reader("~/c.db") as reader:
        assert reader.ask(MeasureStore()).sessions == 1
    assert _entries(Path.cwd()) == []


async def test_tilde_and_user_name_is_the_home_folder_of_that_user(workplace: Path) -> None:
    user = pwd.getpwuid(os.getuid())
    for given in (f"~{user.pw_name}/x.db", f"sqlite:///~{user.pw_name}/x.db"):
        assert resolve_path(given, None) == Path(user.pw_dir, "x.db")


@pytest.mark.parametrize("given", ["./~", "sqlite:///./~", "x~", "./~sessiondb-nobody", "a/~/x.db"])
async def test_tilde_elsewhere_in_a_path_stays(home: Path, given: str) -> None:
    await _stores_at(Path.cwd() / given.removeprefix("sqlite:///"), lambda: DatabaseSessionService(given))
    assert _entries(home) == []


REFUSED_PATHS: dict[str, tuple[Any, str]] = {
    "an empty text": ("", "cannot be a path"),
    "a NUL": ("a\0b", "cannot be a path"),
    "a name that is not UTF-8": (os.fsdecode(b"\xff.sqlite3"), "cannot be a path: SQLite takes names in UTF-8 only"),
    "a number": (5, "not int"),
    "bytes": (b"x.db", "bytes paths are not supported"),
    "another database": ("mysql://user:secret@host/db", "scheme 'mysql'"),
    "a dialect": ("sqlite+aiosqlite:///x.db", "scheme 'sqlite\\+aiosqlite'"),
    "a host": ("sqlite://user:secret@host/x.db", "three slashes"),
    "two slashes": ("sqlite://x.db", "three slashes"),
    "a query": ("sqlite:///x.db?mode=ro&password=secret", "query"),
    "a fragment": ("sqlite:///x.db#secret", "fragment"),
    "no path": ("sqlite:///", "holds no path"),
    "a scheme alone": ("sqlite:", "holds no path"),
    "a NUL in a URL": ("sqlite:///a%00b", "cannot be a path"),
    "a malformed URL": ("sqlite://[secret/x", "malformed"),
    "an unknown user's home": ("~sessiondb-nobody/x.db", "home folder that '~sessiondb-nobody' stands for"),
    "an unknown user's home in a URL": ("sqlite:///~sessiondb-nobody/x.db", "stands for is not known"),
}


@pytest.mark.parametrize("case", REFUSED_PATHS)
def test_invalid_path_or_url_is_configuration_error(workplace: Path, case: str) -> None:
    given, says = REFUSED_PATHS[case]
    with pytest.raises(errors.ConfigurationError, match=says) as refusal:
        DatabaseSessionService(given)
    assert "secret" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert list(workplace.iterdir()) == []


def test_path_and_url_together_are_refused(workplace: Path) -> None:
    with pytest.raises(errors.ConfigurationError, match="not both"):
        DatabaseSessionService("x.db", uri="sqlite:///x.db")
    with pytest.raises(errors.ConfigurationError, match="not both"):
        resolve_path(":memory:", "sqlite:///x.db")


# --- Services that share ----------------------------------------------------------------------------------------------


async def test_services_sharing_a_file_share_its_writer(workplace: Path) -> None:
    (workplace / "sub").mkdir()
    async with (
        DatabaseSessionService("x.db") as one,
        DatabaseSessionService(workplace / "sub" / ".." / "x.db", log_cache="off", on_stale="append") as other,
    ):
        await one.create_session(APP, USER, SESSION)
        assert await other.get_session(APP, USER, SESSION) is not None
        await other.create_session(APP, USER)
        assert one.get_stats()["writes"] == other.get_stats()["writes"] == 2


@pytest.mark.parametrize(
    ("option", "value"),
    [("durability", "normal"), ("readers", 1), ("max_queue", 7), ("max_batch", 7), ("busy_timeout", 7.5)],
)
async def test_services_sharing_a_file_need_equal_options(database_path: Path, option: str, value: Any) -> None:
    async with DatabaseSessionService(database_path, **{option: value}) as service:
        with pytest.raises(errors.ConfigurationError, match=f"{option}={value!r}"):
            DatabaseSessionService(database_path)
        async with DatabaseSessionService(database_path, **{option: value}):
            pass
        await service.create_session(APP, USER)
    # Once it is closed, it can be kept in another way.
    async with DatabaseSessionService(database_path) as renewed:
        assert renewed.get_stats()["sessions"] == 1
