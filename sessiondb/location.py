"""Where a database is: a file, this process's memory, or a schema on a server."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from sessiondb.errors import ConfigurationError

PATH_VARIABLE = "SESSIONDB_PATH"
DEFAULT_PATH = Path(".adk") / "adk.sqlite3"
MEMORY = ":memory:"
DEFAULT_SCHEMA = "public"

_SCHEMES = ("sqlite", "sessiondb")
_SERVER_SCHEMES = ("postgresql", "postgres", "sessiondb+postgresql", "sessiondb+postgres")
_SCHEMA_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]{0,62}")

_TELLING = ("host", "port", "user", "dbname", "service")
"""What of a URL is shown in messages."""

_SECRET = ("password", "sslpassword")

Password: TypeAlias = str | Callable[[], str] | None


@dataclass(frozen=True, slots=True, repr=False)
class ServerLocation:
    """A schema on a PostgreSQL server, and how to log in there. Its text holds no password.

    Attributes:
        url: The URL as libpq takes it; it may hold a password.
        schema: The schema.
        password: The password, or what is called for one at each connect; None: what the URL says, or libpq finds.
        pooled: Whether a pooler in transaction mode stands in front of the server.
    """

    url: str
    schema: str = DEFAULT_SCHEMA
    password: Password = None
    pooled: bool = False

    def __str__(self) -> str:
        return self._written(lambda name: name in _TELLING)

    __repr__ = __str__

    @property
    def label(self) -> str:
        """The name of the database, in short."""
        return unquote(urlsplit(self.url).path.strip("/")) or "postgresql"

    @property
    def identity(self) -> Hashable:
        """Equal for two that name one schema in the same words."""
        return ("postgresql", str(self), self.pooled)

    @property
    def public_url(self) -> str:
        """The URL that a service takes, without a password."""
        url = self._written(lambda name: name not in _SECRET)
        return f"{url}{'&' if '?' in url else '?'}transaction_pooling=true" if self.pooled else url

    @property
    def password_in_url(self) -> str | None:
        """The password, if the URL has one."""
        parts = urlsplit(self.url)
        account = parts.netloc.rpartition("@")[0]
        return unquote(account.partition(":")[2]) or dict(parse_qsl(parts.query)).get("password")

    def _written(self, is_kept: Callable[[str], bool]) -> str:
        parts = urlsplit(self.url)
        account, at, hosts = parts.netloc.rpartition("@")
        user = account.partition(":")[0]
        shown = [(name, value) for name, value in parse_qsl(parts.query) if is_kept(name)]
        if self.schema != DEFAULT_SCHEMA:
            shown.append(("schema", self.schema))
        query = f"?{urlencode(shown, safe='/,', quote_via=quote)}" if shown else ""
        return f"postgresql://{user}{at}{hosts}{parts.path}{query}"


Database: TypeAlias = Path | ServerLocation
"""One that other processes can open, too."""

Location: TypeAlias = Database | None
"""None stands for a database in memory."""


def resolve_location(
    path: str | os.PathLike[str] | None,
    uri: str | None = None,
    *,
    schema: str | None = None,
    password: Password = None,
    transaction_pooling: bool = False,
) -> Location:
    """Finds the database to open.

    Args:
        path: What :func:`resolve_path` takes, or a ``postgresql:`` URL as libpq takes it, which may also say
            ``schema=...`` and ``transaction_pooling=true``.
        uri: The same, as ADK's service registry passes it.
        schema: The schema on a server.
        password: For a server.
        transaction_pooling: For a server.

    Raises:
        ConfigurationError: If both are given, the value cannot be a location, or what is for a server is given for a file.
    """
    if path is not None and uri is not None:
        raise ConfigurationError("give either path or uri, not both")
    given = path if uri is None else uri
    if given is None:
        given = os.environ.get(PATH_VARIABLE) or None
    if isinstance(given, str) and given.partition(":")[0] in _SERVER_SCHEMES:
        return _server_at(given, schema, password, transaction_pooling=transaction_pooling)
    for name, value in (
        ("schema", schema),
        ("password", password),
        ("transaction_pooling", transaction_pooling or None),
    ):
        if value is not None:
            raise ConfigurationError(f"{name} is for a PostgreSQL server; a file has none")
    return resolve_path(path, uri)


def _server_at(url: str, schema: str | None, password: Password, *, transaction_pooling: bool) -> ServerLocation:
    url = url.removeprefix("sessiondb+")
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        # Nothing of it is quoted: it may hold a password.
        raise ConfigurationError("the URL given for the server is malformed") from None
    if url.count("@") > parts.netloc.count("@") or parts.netloc.count("@") > 1 or "#" in url:
        # Otherwise a part of a password would be taken for a host, a port or a path, and be in messages.
        raise ConfigurationError(
            "the URL given for the server is malformed: in a user name or password, write %40 for @, %2F for /, %3F for ?,"
            " %23 for #"
        )
    if not url.startswith(f"{parts.scheme}://"):
        raise ConfigurationError("the URL of a server begins with postgresql://")
    ours = {name: value for name, value in query if name in ("schema", "transaction_pooling")}
    if schema is not None and ours.get("schema", schema) != schema:
        raise ConfigurationError("schema= and the URL name two different schemas")
    schema = schema if schema is not None else ours.get("schema", DEFAULT_SCHEMA)
    if not isinstance(schema, str) or not _SCHEMA_NAME.fullmatch(schema):
        raise ConfigurationError(
            f"{schema!r} cannot be a schema: letters, digits and underscores, at most 63, the first no digit"
        )
    if password is not None and not isinstance(password, str) and not callable(password):
        raise ConfigurationError(f"password must be a string or be callable, not {type(password).__name__}")
    pooled = ours.get("transaction_pooling", "false")
    if pooled not in ("true", "false") or not isinstance(transaction_pooling, bool):
        raise ConfigurationError("transaction_pooling must be true or false")
    rest = [(name, value) for name, value in query if name not in ours]
    url = parts._replace(query=urlencode(rest, quote_via=quote)).geturl()
    if "://" not in url:
        # A URL without a host loses its slashes on the way.
        url = url.replace(":", "://", 1)
    return ServerLocation(url, schema, password, transaction_pooling or pooled == "true")


def resolve_path(path: str | os.PathLike[str] | None, uri: str | None) -> Path | None:
    """Finds the file to open. None stands for a database in memory.

    Args:
        path: A path, a ``sqlite:`` or ``sessiondb:`` URL, or ``":memory:"``. None: ``$SESSIONDB_PATH``, else
            ``.adk/adk.sqlite3`` under the working directory. ``~`` at the start of a path is a home folder.
        uri: The same, as ADK's service registry passes it.

    Raises:
        ConfigurationError: If both are given, or the value cannot be a path.
    """
    if path is not None and uri is not None:
        raise ConfigurationError("give either path or uri, not both")
    given = uri if path is None else path
    if given is None:
        given = os.environ.get(PATH_VARIABLE) or DEFAULT_PATH
    try:
        text = os.fspath(given)
    except TypeError:
        raise ConfigurationError(f"path must be a str or a path-like object, not {type(given).__name__}") from None
    if not isinstance(text, str):
        raise ConfigurationError("path must be text; bytes paths are not supported")
    if text == MEMORY:
        return None
    if isinstance(given, str) and ("://" in text or text.partition(":")[0] in _SCHEMES):
        text = _path_of_url(text)
        if text == MEMORY:
            return None
    if not text or "\0" in text:
        raise ConfigurationError(f"{text!r} cannot be a path; give the path of a file")
    path = Path(expand_home(text)).absolute()
    if ".." in path.parts:
        # SQLite takes no more of them than the path is deep. What goes through a symbolic link is left to the file system.
        short = Path(os.path.normpath(path))
        if os.path.realpath(path.parent) == str(short.parent):
            path = short
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"{str(path)!r} cannot be a path: SQLite takes names in UTF-8 only") from None
    return path


def expand_home(path: str) -> str:
    """Puts a user's home folder in place of ``~`` or ``~user`` at the start of a path, as a shell does.

    Raises:
        ConfigurationError: If there is no such user, or none that has a home.
    """
    if not path.startswith("~"):
        return path
    expanded = os.path.expanduser(path)  # noqa: PTH111  # Path would take the "./" off "./~", which is a folder's name
    if expanded.startswith("~"):
        user = path.partition("/")[0]
        raise ConfigurationError(
            f"the home folder that {user!r} stands for is not known; give the path without it, or write {'./' + user!r} for a"
            " file or folder of that name"
        )
    return expanded


def followed(path: Path) -> Path:
    """Returns the file that a path leads to by now, whether it is there or not.

    Raises:
        ConfigurationError: If the links lead in a circle.
    """
    try:
        return path.resolve()
    except RuntimeError:
        raise ConfigurationError(f"the symbolic links of {str(path)!r} lead in a circle") from None


def _path_of_url(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigurationError("the URL given for the database is malformed") from None
    # Only scheme and path are quoted below: a URL may carry a password.
    if parts.scheme not in _SCHEMES:
        raise ConfigurationError(
            f"URLs of scheme {parts.scheme!r} are not supported; use sqlite:///relative/path, sqlite:////absolute/path,"
            " the same with sessiondb:, postgresql://user@host/database, or a plain path"
        )
    if parts.netloc or parts.query or parts.fragment:
        raise ConfigurationError(
            f"a {parts.scheme}: URL holds a path only, after three slashes (four for an absolute path): host, query"
            " and fragment have no meaning here"
        )
    path = unquote(parts.path).removeprefix("/")
    if not path:
        raise ConfigurationError(f"the {parts.scheme}: URL holds no path; write {parts.scheme}:///path/of/the/file")
    return path
