"""What runs in the processes that are harmed: targets for :class:`tests.faults.zygote.Zygote`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sessiondb import DatabaseSessionService, stores
from tests.faults import shim as faults_shim
from tests.faults.mutants import MUTANTS, checkpoint_at
from tests.faults.workload import many_clients
from tests.faults.zygote import Report


def write_until_killed(
    report: Report,
    *,
    path: str,
    run: int,
    clients: int,
    kill: tuple[str, int, int] | None,
    checkpoint_bytes: int,
    mutant: str = "",
) -> None:
    """Clients append for ever; each acknowledgement is reported once ``append_event`` has returned.

    Args:
        kill: Operations, the number of the call and the way (see :class:`tests.faults.shim.Shim`) at which the process
            kills itself; None leaves that to others.
    """
    MUTANTS[mutant]()
    checkpoint_at(checkpoint_bytes, cut=run % 2 == 0)
    if kill is not None:
        shim = faults_shim.Shim()
        shim.watch(Path(path).parent)
        operations, nth, action = kill
        shim.arm(operations, action, nth=nth)

    def acknowledge(session: str, event: str) -> None:
        report([session, event])

    async def main() -> None:
        service = DatabaseSessionService(path)
        await many_clients(service, [f"run{run}-{client}" for client in range(clients)], None, acknowledge)

    asyncio.run(main())


def record_writes(
    report: Report,
    *,
    folder: str,
    log: str,
    durability: Any,
    clients: int,
    appends: int,
    openings: int,
    place: str = "db.sqlite3",
    cut: bool = False,
    mutant: str = "",
) -> None:
    """Clients append, over several openings of the file, while the shim records; acknowledgements are marks.

    The n-th acknowledgement of all has the mark n; what each of them was about is reported at the end.
    """
    MUTANTS[mutant]()
    checkpoint_at(48 * 1024, cut=cut)
    shim = faults_shim.Shim()
    shim.watch(Path(folder), Path(log))
    acknowledged: list[tuple[str, str]] = []

    def acknowledge(session: str, event: str) -> None:
        shim.mark(len(acknowledged))
        acknowledged.append((session, event))

    async def main() -> None:
        for opening in range(openings):
            async with DatabaseSessionService(Path(folder) / place, durability=durability) as service:
                names = [f"opening{opening}-{client}" for client in range(clients)]
                await many_clients(service, names, appends, acknowledge)

    asyncio.run(main())
    report(acknowledged)


def index_until_killed(report: Report, *, path: str) -> None:
    """Makes the index of texts; reports each slice before the next one."""
    stores.build_index(Path(path), lambda done, of: report([done, of]))
