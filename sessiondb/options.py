"""Options of the service, and the path it keeps its file at: checked once, then frozen."""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, ParamSpec, get_args
from urllib.parse import unquote, urlsplit

from sessiondb.errors import ConfigurationError

Durability = Literal["full", "normal"]
OnStale = Literal["reject", "append"]
CacheMode = Literal["copy", "shallow", "share", "off"]
NoneInDelta = Literal["delete", "store"]

P = ParamSpec("P")

PATH_VARIABLE = "SESSIONDB_PATH"
DEFAULT_PATH = Path(".adk") / "adk.sqlite3"
MEMORY = ":memory:"

_SCHEMES = ("sqlite", "sessiondb")


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a file is kept. All services of a process that share a file must agree on them.

    :class:`~sessiondb.DatabaseSessionService` says what each is for.
    """

    durability: Durability = "full"
    readers: int = 4
    max_queue: int = 10_000
    max_batch: int = 256
    busy_timeout: float = 30.0

    def __post_init__(self) -> None:
        _check_choice("durability", self.durability, get_args(Durability))
        _check_count("readers", self.readers, 1, 64)
        _check_count("max_queue", self.max_queue, 1, 10_000_000)
        _check_count("max_batch", self.max_batch, 1, 1024)
        timeout = self.busy_timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not math.isfinite(timeout):
            raise ConfigurationError(f"busy_timeout must be a finite number of seconds, not {timeout!r}")
        if not 0 < timeout <= 2_000_000:
            raise ConfigurationError(f"busy_timeout must be above 0 and at most 2,000,000 seconds, not {timeout!r}")


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How one service behaves towards its callers; :class:`~sessiondb.DatabaseSessionService` says what each is for."""

    on_stale: OnStale = "reject"
    log_cache: CacheMode = "copy"
    log_cache_bytes: int = 256 * 1024 * 1024
    follow_symlinks: bool = False
    none_in_delta: NoneInDelta = "delete"

    def __post_init__(self) -> None:
        _check_choice("on_stale", self.on_stale, get_args(OnStale))
        _check_choice("log_cache", self.log_cache, get_args(CacheMode))
        _check_choice("none_in_delta", self.none_in_delta, get_args(NoneInDelta))
        _check_count("log_cache_bytes", self.log_cache_bytes, 0, 2**62)
        if not isinstance(self.follow_symlinks, bool):
            raise ConfigurationError(f"follow_symlinks must be True or False, not {self.follow_symlinks!r}")


def known_to_registry(init: Callable[P, None]) -> Callable[P, None]:
    """Has a constructor refuse unknown arguments that come by way of ADK's service registry, and say what it knows.

    The registry, which gives the argument ``uri``, passes on what its own caller was given
    (``get_fast_api_app(session_db_kwargs=...)``): configuration, often meant for another service. From anybody else such
    an argument is the ``TypeError`` that Python has for it.
    """
    names = list(inspect.signature(init).parameters)
    known = names[names.index("agents_dir") + 1 :]

    @functools.wraps(init)
    def checked(*args: P.args, **kwargs: P.kwargs) -> None:
        unknown = sorted(kwargs.keys() - set(names))
        if unknown and kwargs.get("uri") is not None:
            raise ConfigurationError(
                f"there is no option {', '.join(map(repr, unknown))}; the options of sessiondb are {', '.join(known)}"
            )
        init(*args, **kwargs)

    return checked


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
            " the same with sessiondb:, or a plain path"
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


def check_wait(wait: object) -> None:
    """Checks how long a turn may be waited for.

    Raises:
        ConfigurationError: If it is not a number of seconds from 0 to 2,000,000.
    """
    if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= 2_000_000:
        raise ConfigurationError(f"wait must be a number of seconds from 0 to 2,000,000, not {wait!r}")


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}")


def _check_count(name: str, value: object, lowest: int, highest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"{name} must be a whole number, not {value!r}")
    if not lowest <= value <= highest:
        raise ConfigurationError(f"{name} must be from {lowest} to {highest:,}, not {value}")
