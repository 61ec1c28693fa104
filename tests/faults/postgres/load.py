"""Hosts under load: started, listened to while something happens to them or their server, and stopped."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.faults.postgres.clients import HUNG
from tests.faults.zygote import Child, Zygote

PROGRAM = "tests.faults.postgres.clients:"

BATCH = 256
"""Requests of more bytes are batches; what is smaller belongs to opening a connection, or is a question."""

BUSY_TIMEOUT = 2.0
"""How long calls of the hosts wait, in seconds."""


class _Host:
    """A process, and the thread that listens to it."""

    def __init__(self, name: str, child: Child) -> None:
        self.name = name
        self.child = child
        self.acknowledged = 0
        self.failure: BaseException | None = None
        self.ended = False
        self.thread: threading.Thread


class Load:
    """Hosts that append to sessions on one server, until they are stopped.

    Attributes:
        acknowledged: For each session that was created, the ids of the events that were acknowledged, in that order.
        refused: The ids of events of which hosts were told that they are not there.
        told: How often which error was raised.
        figures: Sums of the hosts' own figures.
        lost: What hosts said that found acknowledged writes missing.
    """

    def __init__(self, zygote: Zygote, folder: Path, url: str, *, tasks: int = 8, **arguments: Any) -> None:
        """Starts nothing.

        Args:
            zygote: Starts the processes.
            folder: Where nobody else writes.
            url: The database.
            tasks: Of each host.
            arguments: More of them, for :func:`tests.faults.postgres.clients.serve`.
        """
        self.acknowledged: dict[str, list[str]] = defaultdict(list)
        self.told: Counter[str] = Counter()
        self.figures: Counter[str] = Counter()
        self.refused: list[str] = []
        self.lost: list[str] = []
        self._zygote = zygote
        self._stop = folder / "stop"
        self._arguments = {"url": url, "tasks": tasks, "busy_timeout": BUSY_TIMEOUT, **arguments}
        self._hosts: list[_Host] = []
        self._started = 0
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for host in self._hosts:
                host.child.kill()
                host.thread.join()
                host.child.wait()
        self._stop.unlink(missing_ok=True)

    def start(self, hosts: int = 1, **arguments: Any) -> None:
        """Starts hosts; ``arguments`` go before those that were given for all."""
        for _ in range(hosts):
            name = f"host{self._started}"
            self._started += 1
            child = self._zygote.start(
                PROGRAM + "serve", name=name, stop=str(self._stop), **{**self._arguments, **arguments}
            )
            host = _Host(name, child)
            host.thread = threading.Thread(target=self._listen, args=[host])
            self._hosts.append(host)
            host.thread.start()

    @property
    def total(self) -> int:
        """How many events were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def wait_for(self, each: int) -> None:
        """Waits until each host has been given so many more acknowledgements: it works, whatever happened before.

        Raises:
            AssertionError: If that takes so long that a call must hang; or a host has failed.
        """
        with self._changed:
            goals = [(host, host.acknowledged + each) for host in self._hosts]
            reached = self._changed.wait_for(
                lambda: all(host.acknowledged >= goal or host.ended for host, goal in goals), HUNG
            )
        self._look()
        assert reached, (
            f"no acknowledgement for {HUNG:g} s: {[host.name for host, goal in goals if host.acknowledged < goal]}"
        )

    def is_over(self) -> bool:
        """Whether all hosts have come to an end by themselves."""
        with self._changed:
            return all(host.ended for host in self._hosts)

    def kill_oldest(self) -> None:
        """Ends the host that was started first, as a crash would."""
        host = self._hosts.pop(0)
        host.child.kill()
        assert host.child.wait() == -9
        host.thread.join()
        assert host.failure is None

    def stop(self) -> None:
        """Has all hosts come to an end, once what they are at is acknowledged."""
        self._stop.touch()
        self.join()

    def join(self) -> None:
        """Waits for the end of all hosts."""
        for host in self._hosts:
            host.thread.join(2 * HUNG)
            assert not host.thread.is_alive(), f"{host.name} does not end"
        self._look()
        for host in self._hosts:
            assert host.child.wait() == 0
        self._hosts.clear()

    def _look(self) -> None:
        for host in self._hosts:
            if host.failure is not None:
                raise host.failure

    def _listen(self, host: _Host) -> None:
        try:
            for said in host.child.reports():
                with self._changed:
                    if isinstance(said, list):
                        session, event = said
                        log = self.acknowledged[session]
                        if event:
                            log.append(event)
                            host.acknowledged += 1
                    elif "refused" in said:
                        self.refused.append(said["refused"])
                    elif "lost" in said:
                        self.lost.append(said["lost"])
                    else:
                        self.told.update(said["told"])
                        self.figures.update(said["stats"])
                    self._changed.notify_all()
        except BaseException as failure:  # noqa: BLE001  # raised where the host is waited for
            host.failure = failure
        with self._changed:
            host.ended = True
            self._changed.notify_all()
