"""What a server store keeps apart: accounts, names that look like SQL, the users of an app, and what goes over a wire."""

from __future__ import annotations

import logging
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from sessiondb import DatabaseSessionService, errors
from sessiondb.stores import open_import, open_reader
from tests.contract.places import APP, SESSION, USER, event
from tests.postgres.server import PROGRAMS, Server, programs, server

pytestmark = pytest.mark.anyio

PASSWORD = "p'w\" \\ %40:/?#[]@"  # noqa: S105  # of a server of these tests
QUOTED = quote(PASSWORD, safe="")


# --- Names ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "'; DROP TABLE adk_events; --",
    '"; DROP TABLE adk_events; --',
    "%s %(app_name)s %%",
    "$1 $$ \\ \\' E'\\'' {}",
    "@adk_events @path",
    "null",
    "\u2028\U0001f600é",
    '{"a": 1}',
]


@pytest.mark.parametrize("name", HOSTILE)
async def test_names_that_look_like_sql_are_names(postgres_database: str, name: str) -> None:
    async with DatabaseSessionService(postgres_database, log_cache="off") as service:
        await service.create_session(APP, USER, SESSION, {"kept": 1})
        session = await service.create_session(
            name, name, name, {name: name, f"user:{name}": name, f"app:{name}": name}
        )
        await service.append_event(session, event(1, event_id=name, author=name, **{f"user__{name}": [name]}))
        await service.append_event(session, event(1, event_id=name, author=name, **{f"user__{name}": [name]}))
        stale = session.model_copy(deep=True)
        await service.update_keys(name, name, name, {name: None})
        await service.append_event(session, event(2, author=name))
        with pytest.raises(errors.StaleSessionError):
            await service.append_event(stale, event(3))
        found = await service.get_session(name, name, name)
        assert found is not None
        assert found.state == {f"user:{name}": [name], f"app:{name}": name}
        assert [one.author for one in found.events] == [name, "user", name]
        assert await service.get_user_state(name, name) == {name: [name]}
        assert len((await service.list_sessions(name, name)).sessions) == 1
        await service.delete_session(name, name, name)
        other = await service.get_session(APP, USER, SESSION)
        assert other is not None
        assert other.state == {"kept": 1}
        assert (service.get_stats()["sessions"], service.get_stats()["events"]) == (1, 0)


async def test_ids_of_another_user_find_nothing(postgres_database: str) -> None:
    async with DatabaseSessionService(postgres_database) as service:
        session = await service.create_session(APP, "owner", SESSION, {"user:secret": 1})
        await service.append_event(session, event(1, event_id="e", own=1))
        for app, user in ((APP, "thief"), ("other", "owner")):
            assert await service.get_session(app, user, SESSION) is None
            assert (await service.list_sessions(app, user)).sessions == []
            assert await service.get_user_state(app, user) == {}
            await service.delete_session(app, user, SESSION)
            with pytest.raises(errors.SessionNotFoundError):
                await service.update_keys(app, user, SESSION, {"x": 1})
            taken = session.model_copy(deep=True, update={"app_name": app, "user_id": user})
            with pytest.raises(errors.SessionNotFoundError):
                await service.append_event(taken, event(2))
        found = await service.get_session(APP, "owner", SESSION)
        assert found is not None
        assert (found.state, len(found.events)) == ({"own": 1, "user:secret": 1}, 1)


# --- Accounts ---------------------------------------------------------------------------------------------------------


async def test_account_without_the_right_to_create_uses_tables_made_beforehand(
    postgres_server: Server, postgres_database: str
) -> None:
    """The grants are those of docs/postgresql.md."""
    database = postgres_database.rpartition("/")[2]
    async with DatabaseSessionService(postgres_database, schema="kept") as owner:
        await owner.create_session(APP, USER, SESSION)
    with postgres_server.connect(database) as connection:
        for account in ("sessiondb_app", "sessiondb_reader", "sessiondb_stranger"):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(account)))
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(account)))
        try:
            connection.execute("GRANT USAGE ON SCHEMA kept TO sessiondb_app, sessiondb_reader")
            connection.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA kept TO sessiondb_app")
            connection.execute("GRANT USAGE ON ALL SEQUENCES IN SCHEMA kept TO sessiondb_app")
            connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA kept TO sessiondb_reader")
            as_app = postgres_database.replace("postgres@", "sessiondb_app@")
            async with DatabaseSessionService(as_app, schema="kept") as service:
                session = await service.get_session(APP, USER, SESSION)
                assert session is not None
                await service.append_event(session, event(1, user__k=1))
                assert await service.get_user_state(APP, USER) == {"k": 1}
                with pytest.raises(errors.StorageError, match="was not vacuumed"):
                    service.vacuum()
            for account in ("sessiondb_reader", "sessiondb_stranger"):
                with pytest.raises(errors.StorageError, match=r"may not do this"):
                    DatabaseSessionService(postgres_database.replace("postgres@", f"{account}@"), schema="kept")
            with pytest.raises(errors.StorageError, match="may not do this"):
                DatabaseSessionService(as_app, schema="not_there")
        finally:
            for account in ("sessiondb_app", "sessiondb_reader", "sessiondb_stranger"):
                connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(account)))
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(account)))


# --- Passwords and certificates ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """A server that wants a password."""
    with server(fsync=False, password=PASSWORD) as running:
        hba = running.data / "pg_hba.conf"
        rules = "host all excluded all reject\nhost all outsider all trust\n"
        running.write("pg_hba.conf", rules + hba.read_text(encoding="utf-8"))
        with running.connect() as connection:
            for account in ("stranger", "tenant"):
                created = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
                connection.execute(created.format(sql.Identifier(account), sql.Literal(PASSWORD)))
            connection.execute("GRANT CREATE ON DATABASE postgres TO tenant")
            connection.execute("CREATE DATABASE private STRATEGY file_copy")
            connection.execute("REVOKE CONNECT ON DATABASE private FROM PUBLIC")
            connection.execute("SELECT pg_reload_conf()")
        yield running


async def test_password_is_asked_for_at_each_connect(guarded: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = guarded.url()
    bare = url.partition("://")[0] + "://postgres@" + url.rpartition("@")[2]
    asked: list[str] = []

    def token() -> str:
        asked.append(PASSWORD)
        return PASSWORD

    async with DatabaseSessionService(bare, password=token, schema="tokens") as service:
        session = await service.create_session(APP, USER, SESSION)
        at_start = len(asked)
        guarded.terminate_backends()
        await service.append_event(session, event(1))
        assert len(asked) > at_start
    async with DatabaseSessionService(url, schema="tokens"):
        pass
    said = [str(service), repr(service), caplog.text]
    for wrong in ("wrong-secret", lambda: "wrong-secret"):
        with pytest.raises(errors.StorageError) as refusal:
            DatabaseSessionService(bare, password=wrong)
        said += [str(refusal.value), str(refusal.value.__cause__)]

    def failing() -> str:
        raise RuntimeError("wrong-secret")

    with pytest.raises(errors.ServerUnreachableError, match="raised RuntimeError") as refusal:
        DatabaseSessionService(bare, password=failing)
    said.append(str(refusal.value))
    assert not [text for text in said if PASSWORD in text or "wrong-secret" in text]


@pytest.mark.parametrize(
    ("account", "database", "why"),
    [
        ("postgres:wrong-secret@", "postgres", 'password authentication failed for user "postgres"'),
        ("postgres@", "postgres", "no password supplied"),
        ("nobody:wrong-secret@", "postgres", 'password authentication failed for user "nobody"'),
        (f"postgres:{QUOTED}@", "nowhere", 'database "nowhere" does not exist'),
        ("excluded@", "postgres", "pg_hba.conf rejects connection"),
        ("outsider@", "postgres", 'role "outsider" does not exist'),
        (f"stranger:{QUOTED}@", "private", 'permission denied for database "private"'),
    ],
)
def test_refused_login_says_at_once_what_was_wrong(guarded: Server, account: str, database: str, why: str) -> None:
    url = f"postgresql://{account}127.0.0.1:{guarded.port}/{database}"
    for opening in (
        lambda: DatabaseSessionService(url, busy_timeout=3600.0),
        lambda: open_reader(url, timeout=3600.0),
        lambda: open_import(url, timeout=3600.0),
    ):
        with pytest.raises(errors.LoginRefusedError, match=re.escape(why)) as refusal:
            opening()
        said = [repr(refusal.value), str(refusal.value.__cause__)]
        assert not [text for text in said if PASSWORD in text or QUOTED in text or "wrong-secret" in text]


async def test_running_service_waits_for_a_password_that_is_in_change(guarded: Server) -> None:
    """Seen failing while a refused login ended the wait for a server."""
    known = [PASSWORD]
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        if asked == 3:
            known.append("rotated")
        return known[-1]

    def rotate(password: str) -> None:
        with guarded.connect() as connection:
            statement = sql.SQL("ALTER ROLE tenant PASSWORD {}").format(sql.Literal(password))
            connection.execute(statement)
        guarded.terminate_backends()

    bare = f"postgresql://tenant@127.0.0.1:{guarded.port}/postgres"
    async with DatabaseSessionService(bare, password=token, schema="rotated", busy_timeout=30.0) as service:
        session = await service.create_session(APP, USER, SESSION)
        asked = 0
        rotate("rotated")
        await service.append_event(session, event(1))
        assert asked == 3
    async with DatabaseSessionService(bare, password=lambda: known[-1], schema="rotated", busy_timeout=0.2) as service:
        rotate(PASSWORD)
        with pytest.raises(errors.LoginRefusedError):
            await service.get_session(APP, USER, SESSION)
        # What was given to a connection that turned out to be lost may have been taken.
        with pytest.raises(errors.OutcomeUnknownError):
            await service.append_event(session, event(2))
        with pytest.raises(errors.LoginRefusedError):
            await service.append_event(session, event(2))
        known.append(PASSWORD)
        await service.append_event(session, event(2))


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server with a certificate for "localhost", and the authority that signed it."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not installed:
        pytest.skip("the server of the wheel knows no TLS, and Debian's is not installed (apt-get install postgresql)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROGRAMS, str(installed[-1].parent))
        programs.cache_clear()
        try:
            yield from _certified(tmp_path_factory)
        finally:
            programs.cache_clear()


def _certified(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    openssl_program = shutil.which("openssl")
    assert openssl_program, "Debian's PostgreSQL comes with openssl"

    def openssl(*arguments: str) -> None:
        subprocess.run([openssl_program, *arguments], cwd=folder, check=True, capture_output=True)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    openssl(*new, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=an authority of this test")
    openssl(
        *new, "-keyout", "server.key", "-out", "server.crt", "-subj", "/CN=localhost", "-CA", "ca.crt", "-CAkey", "ca.key",
        "-addext", "basicConstraints=critical,CA:false", "-addext", "subjectAltName=DNS:localhost",
    )  # fmt: skip
    one = Server(fsync=False, settings={"ssl": "on", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"})
    try:
        one.initialize()
        for name in ("server.crt", "server.key"):
            copy = one.data / name
            copy.write_bytes((folder / name).read_bytes())
            copy.chmod(0o600)
            status = one.data.stat()
            os.chown(copy, status.st_uid, status.st_gid)
        one.start()
        yield one, folder / "ca.crt"
    finally:
        one.remove()


async def test_certificate_is_verified(certified: tuple[Server, Path], tmp_path: Path) -> None:
    running, authority = certified
    url = running.url().replace("127.0.0.1", "localhost")
    verified = f"{url}?sslmode=verify-full&sslrootcert={authority}"
    async with DatabaseSessionService(verified) as service:
        await service.create_session(APP, USER, SESSION)
    with psycopg.connect(verified) as connection:
        assert connection.pgconn.ssl_in_use
    # The name in it is another one, and another authority knows nothing of it.
    with pytest.raises(errors.ServerUnreachableError, match="certificate"):
        DatabaseSessionService(verified.replace("localhost", "127.0.0.1"))
    other = tmp_path / "other.crt"
    other.write_text(ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert((running.data / "server.crt").read_text())))
    with pytest.raises(errors.ServerUnreachableError, match="certificate"):
        DatabaseSessionService(f"{url}?sslmode=verify-full&sslrootcert={other}")
