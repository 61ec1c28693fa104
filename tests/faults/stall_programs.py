"""Processes whose disk stands still, or which store what is very large: targets for a zygote."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types

from sessiondb import DatabaseSessionService
from sessiondb.errors import InvalidInputError, QueueFullError
from tests.faults.shim import SYNC, Shim
from tests.faults.workload import APP, make_event
from tests.faults.zygote import Report

USER = "u"


async def until(condition: Callable[[], bool]) -> None:
    """Lets other tasks and threads run until ``condition`` holds."""
    async with asyncio.timeout(100):
        while not condition():  # noqa: ASYNC110  # it comes true in a thread that tells no event of this loop
            await asyncio.sleep(0.001)


def stand_still(report: Report, *, path: str, seconds: float) -> None:
    """The disk stands still in the middle of a commit, for so long at least; then it goes on."""
    shim = Shim()
    shim.watch(Path(path).parent)

    async def main() -> None:
        async with DatabaseSessionService(path, max_queue=4, busy_timeout=0.05) as service:
            acknowledged: dict[str, list[str]] = {}
            refused: list[str] = []
            sessions = {}
            for name in ("begun", "cancelled", *(f"queued{n}" for n in range(4)), "late"):
                sessions[name] = await service.create_session(app_name=APP, user_id=USER, session_id=name)
                acknowledged[name] = []
            await service.append_event(sessions["begun"], make_event("begun/0", 0))
            acknowledged["begun"].append("begun/0")

            async def append(name: str, event_id: str) -> None:
                await service.append_event(sessions[name], make_event(event_id, 1))
                acknowledged[name].append(event_id)

            # A batch is answered a moment before the writer has done with it.
            await until(lambda: service.health().busy_seconds == 0)
            shim.hold(SYNC)
            tasks = [asyncio.create_task(append("begun", "begun/1"))]
            await until(lambda: service.health().busy_seconds > 0)
            cancelled = asyncio.create_task(append("cancelled", "cancelled/1"))
            tasks += [asyncio.create_task(append(f"queued{n}", f"queued{n}/1")) for n in range(3)]
            await until(lambda: service.health().pending_writes == 5)
            # The queue is full: who comes now is told so. Who waits in it can go away, and makes room.
            try:
                await append("late", "late/1")
            except QueueFullError:
                refused.append("late/1")
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            refused.append("cancelled/1")
            tasks.append(asyncio.create_task(append("queued3", "queued3/1")))
            # Reads go on: what is known already, what is not, and everything that is no session.
            read: list[Any] = [
                await service.get_session(app_name=APP, user_id=USER, session_id="begun"),
                (await service.list_sessions(app_name=APP)).sessions,
                await service.get_user_state(app_name=APP, user_id=USER),
                service.get_stats()["sessions"],
            ]
            await until(lambda: not service.health(stalled_after=seconds).healthy)
            during = service.health(stalled_after=seconds)
            assert not any(task.done() for task in tasks)
            shim.release()
            await asyncio.gather(*tasks)
            await service.flush()
            after = service.health(stalled_after=seconds)
            for name, session in sessions.items():
                await service.append_event(session, make_event(f"{name}/last", 2))
                acknowledged[name].append(f"{name}/last")
            session = read[0]
            report(
                {
                    "acknowledged": acknowledged,
                    "refused": refused,
                    "read": [[event.id for event in session.events], len(read[1]), sorted(read[2]), read[3]],
                    "during": [during.healthy, during.writer_alive, during.pending_writes],
                    "busy_seconds": during.busy_seconds,
                    "after": [after.healthy, after.writer_alive, after.pending_writes],
                    "longest_commit_seconds": service.get_stats()["longest_commit_seconds"],
                    "failed_batches": service.get_stats()["failed_batches"],
                }
            )

    asyncio.run(main())


def large_event(kind: str, size: int) -> Event:
    """Returns an event whose JSON holds so many bytes in one place."""
    event = Event(id=f"large/{kind}/{size}", invocation_id="i", author="user", timestamp=1_700_000_000.0)
    text = "0123456789abcdef" * (size // 16)
    match kind:
        case "text":
            event.content = types.Content(role="user", parts=[types.Part(text=text)])
        case "bytes":
            data = b"\x00\xfe\xff" * (size // 4)
            event.content = types.Content(
                role="user", parts=[types.Part(inline_data=types.Blob(data=data, mime_type="video/mp4"))]
            )
        case "state":
            event.actions = EventActions(state_delta={"large": text})
        case _:
            event.custom_metadata = {"large": [text]}
    return event


def store_large(report: Report, *, path: str, kind: str, sizes: list[int]) -> None:
    """Events of these sizes come together, with small ones of other sessions between them; each is read back."""

    async def main() -> None:
        async with DatabaseSessionService(path, log_cache="off") as service:
            sessions = [
                await service.create_session(app_name=APP, user_id=USER, session_id=f"s{number}")
                for number in range(2 * len(sizes))
            ]
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            events = [large_event(kind, size) for size in sizes]
            calls: list[Any] = []
            for number, event in enumerate(events):
                calls.append(service.append_event(sessions[2 * number], event))
                calls.append(service.append_event(sessions[2 * number + 1], make_event(f"small/{number}", 1)))
            answers = await asyncio.gather(*calls, return_exceptions=True)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            outcomes = []
            for number, event in enumerate(events):
                answer = answers[2 * number]
                read = await service.get_session(app_name=APP, user_id=USER, session_id=f"s{2 * number}")
                assert read is not None
                if isinstance(answer, InvalidInputError):
                    assert sessions[2 * number].events == []
                    outcomes.append(
                        "refused" if read.events == [] and "large" not in read.state else "refused, yet there"
                    )
                    # The session is as good as before.
                    await service.append_event(sessions[2 * number], make_event("small/again", 1))
                elif isinstance(answer, BaseException):
                    raise answer
                else:
                    same = read.events == [event] and read.state.get("large") == event.actions.state_delta.get("large")
                    outcomes.append("equal" if same else "different")
            report(
                {
                    "outcomes": outcomes,
                    "small": [type(answer).__name__ for answer in answers[1::2]],
                    "grown": grown * 1024,
                    "failed_batches": service.get_stats()["failed_batches"],
                }
            )

    asyncio.run(main())
