"""Options of the service: checked once, then frozen."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, get_args

from sessiondb.errors import ConfigurationError
from sessiondb.retention import Retention

Durability = Literal["full", "normal"]
OnStale = Literal["reject", "append"]
CacheMode = Literal["copy", "shallow", "share", "off"]
NoneInDelta = Literal["delete", "store"]
Index = Literal["text"]

P = ParamSpec("P")


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
    index: Index | None = None

    def __post_init__(self) -> None:
        _check_choice("durability", self.durability, get_args(Durability))
        if self.index is not None:
            _check_choice("index", self.index, get_args(Index))
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
    before_store: Callable[[Any], Any] | None = None
    retention: Retention | None = None

    def __post_init__(self) -> None:
        _check_choice("on_stale", self.on_stale, get_args(OnStale))
        _check_choice("log_cache", self.log_cache, get_args(CacheMode))
        _check_choice("none_in_delta", self.none_in_delta, get_args(NoneInDelta))
        _check_count("log_cache_bytes", self.log_cache_bytes, 0, 2**62)
        if not isinstance(self.follow_symlinks, bool):
            raise ConfigurationError(f"follow_symlinks must be True or False, not {self.follow_symlinks!r}")
        if self.before_store is not None and not callable(self.before_store):
            raise ConfigurationError(f"before_store must be a function or None, not {self.before_store!r}")
        if inspect.iscoroutinefunction(self.before_store):
            raise ConfigurationError("before_store must be a plain function: the event is stored when it returns")
        if self.retention is not None and not isinstance(self.retention, Retention):
            raise ConfigurationError(f"retention must be a Retention or None, not {self.retention!r}")


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
