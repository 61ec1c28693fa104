"""One engine for each store that is open in this process, however many services name it; and what forks and exits do."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Hashable
from contextlib import ExitStack
from dataclasses import asdict, replace

from sessiondb.engine.engine import Engine
from sessiondb.engine.store import Store
from sessiondb.engine.waiting import Ticket, run_on_thread, wait_in_task, waiter_for_task
from sessiondb.errors import ConfigurationError, ServiceClosedError
from sessiondb.options import StoreOptions

_EXIT_TIMEOUT = 0.5
"""How long the interpreter's exit waits for an unclosed store to commit what is queued, in seconds."""

_registry_lock = threading.RLock()
_engines: dict[Hashable, Engine] = {}
_shares: dict[Engine, int] = {}
# Engines that nobody shares any more, until they are closed: a fork must wait for them.
_ending: set[Engine] = set()
_suspended: list[Engine] = []


def share(open_store: Callable[[], Store], options: StoreOptions) -> Engine:
    """Returns the engine of a store: the one that this process has open on it, or a new one. Give it back in the end.

    Args:
        open_store: Makes the store.
        options: How to keep it.

    Raises:
        ConfigurationError: If the store cannot be used, or a service of this process keeps it in another way.
        StorageError: If the store cannot be opened, is damaged, or is not ours.
    """
    with _registry_lock:
        store = open_store()
        engine = _engines.get(store.identity)
        if engine is None:
            with ExitStack() as undo:
                undo.callback(store.close)
                engine = _engines[store.identity] = Engine(store, options)
                undo.pop_all()
            _shares[engine] = 0
        elif replace(engine.options, index=options.index) != options:
            kept = asdict(engine.options).items()
            different = ", ".join(
                f"{name}={value!r}" for name, value in kept if value != getattr(options, name) and name != "index"
            )
            raise ConfigurationError(
                f"another service of this process has {store.name!r} open with {different}: services that"
                " share a file must agree on how it is kept"
            )
        elif options.index is not None and engine.options.index is None:
            # An index is for all who use the store, whoever asks for it first.
            engine.go_on_with(store, options)
        _shares[engine] += 1
        return engine


def share_again(engine: Engine) -> Engine:
    """Returns an engine that somebody has a share of, with one more. Give it back in the end.

    Raises:
        ServiceClosedError: If the last share was given up meanwhile.
    """
    with _registry_lock:
        if engine not in _shares:
            raise ServiceClosedError("the session service was closed before it could be copied")
        _shares[engine] += 1
        return engine


async def give_back(engine: Engine, *, first: bool) -> None:
    """Gives up one share; the last one closes the engine, after committing what is queued. Waits for the end.

    Args:
        engine: What :func:`share` returned.
        first: Whether this share is given up by this call; False only waits, if the engine is closing.
    """
    if first:
        _give_up(engine)
    if engine in _shares:
        return
    waiter = waiter_for_task()
    ticket: Ticket[None, None] = Ticket(None, waiter)
    try:
        run_on_thread(lambda: _close(engine), ticket, "sessiondb-close")
    except RuntimeError:
        # The interpreter is ending; nobody else is there to be held up.
        _close(engine, _EXIT_TIMEOUT)
        return
    # Closing cannot be taken back.
    await wait_in_task(ticket, waiter, lambda _: False)


def give_back_in_background(engine: Engine) -> None:
    """As :func:`give_back`, without waiting."""
    _give_up(engine)
    if engine not in _shares:
        threading.Thread(target=_close, args=(engine,), name="sessiondb-close", daemon=True).start()


def _give_up(engine: Engine) -> None:
    with _registry_lock:
        _shares[engine] -= 1
        if _shares[engine]:
            return
        _ending.add(engine)
        del _shares[engine], _engines[engine.store.identity]


def _close(engine: Engine, timeout: float | None = None) -> None:
    engine.close(timeout)
    with _registry_lock:
        _ending.discard(engine)


def _before_fork() -> None:
    # SQLite's locks belong to the process, and its bookkeeping of them would be copied into the child, where it is
    # wrong: a child could then commit into a WAL that the parent has removed. So no file is open while forking.
    _registry_lock.acquire()
    _suspended[:] = [*_engines.values(), *_ending]
    for engine in _suspended:
        engine.suspend()


def _after_fork_in_parent() -> None:
    for engine in _suspended:
        engine.resume()
    _suspended.clear()
    _registry_lock.release()


def _after_fork_in_child() -> None:
    global _registry_lock  # noqa: PLW0603  # the parent's is held by a thread that is not here
    _registry_lock = threading.RLock()
    for engine in _suspended:
        engine.start_over()
    _suspended.clear()
    # The parent's to close.
    _ending.clear()


def _at_exit() -> None:
    # An owner that never closes, as ADK's servers do not, loses nothing by it, and does not keep the process alive. A
    # thread that closes a dropped service would be cut off by the end of the interpreter.
    with _registry_lock:
        engines = [*_engines.values(), *_ending]
    for engine in engines:
        _close(engine, _EXIT_TIMEOUT)


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
