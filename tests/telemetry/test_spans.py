"""Each call of a service is a span in the caller's trace, and ends however the call ends.

Seen to fail with spans that begin a trace of their own, with one that a cancellation leaves open, and with the message
of an exception in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from sessiondb import DatabaseSessionService
from tests.engine.tools import a_while, writer_at_rest
from tests.scripted import APP as SCRIPTED_APP
from tests.scripted import USER as SCRIPTED_USER
from tests.scripted import call, say, scripted_runner
from tests.telemetry.exporting import Exported, attributes_of
from tests.telemetry.workload import APP, SECRET, USER, event, every_call

pytestmark = pytest.mark.anyio


async def test_every_call_is_a_span_with_attributes(
    exported: Exported, service: DatabaseSessionService, database_path: Path, tmp_path: Path
) -> None:
    await every_call(service, tmp_path)
    for span in exported.spans():
        name = attributes_of(span)["db.operation.name"]
        assert span.name == f"{name} {database_path.name}"
        assert span.kind is SpanKind.CLIENT
        assert attributes_of(span)["db.namespace"] == str(database_path)
        assert attributes_of(span)["db.system.name"] == "sqlite"
    sessions = {
        attributes_of(span)["db.operation.name"]: attributes_of(span).get("gen_ai.conversation.id")
        for span in exported.spans()
    }
    assert sessions == {
        **dict.fromkeys(
            ("list_sessions", "get_user_state", "get_stats", "vacuum", "backup", "flush", "list_forks", "prune")
        ),
        "erase_user": None,
        **dict.fromkeys(("create_session", "get_session", "append_event", "append_events", "update_keys"), "s"),
        **dict.fromkeys(("get_events", "get_event_count", "usage", "history", "get_session_at", "fork_session"), "s"),
        **dict.fromkeys(("redact_events", "truncate_session", "delete_session"), "s"),
        "search": "s",
    }


async def test_span_names_generated_session_id(exported: Exported, service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER)
    (span,) = exported.spans()
    assert attributes_of(span)["gen_ai.conversation.id"] == session.id


async def test_span_has_no_content_state_or_user_id(
    exported: Exported, service: DatabaseSessionService, tmp_path: Path
) -> None:
    await every_call(service, tmp_path)
    spans = [json.loads(span.to_json()) for span in exported.spans()]
    assert [span["status"].get("description") for span in spans if span["status"]["status_code"] == "ERROR"] == [
        "StaleSessionError",
        "InvalidInputError",
        "SessionNotFoundError",
        "SearchIndexError",
    ]
    assert SECRET not in json.dumps(spans)
    assert not any(span["events"] for span in spans)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_spans_are_children_in_the_trace_of_the_run(exported: Exported, service: DatabaseSessionService) -> None:
    def look_up(city: str) -> str:
        return f"{city}: sunny"

    runner = scripted_runner(service, [call("look_up", city="Bern"), "It is sunny."], tools=[look_up])
    with trace.get_tracer("host").start_as_current_span("request") as request:
        await service.create_session(SCRIPTED_APP, SCRIPTED_USER, "s")
        await say(runner, "How is the weather?", session_id="s")
    assert {span.context.trace_id for span in exported.all_spans()} == {request.get_span_context().trace_id}
    by_id = {span.context.span_id: span.name for span in exported.all_spans() if span.context is not None}
    parents = [(span.name.split()[0], _parent(span, by_id)) for span in exported.spans()]
    appends = [parent for name, parent in parents if name == "append_event"]
    assert ("create_session", "request") in parents
    assert ("get_session", "request") in parents
    # The user's message, the call of the tool, its answer, the reply: inside ADK's own span of the run.
    assert appends == ["invoke_workflow scripted_agent"] * 4


def _parent(span: ReadableSpan, names: dict[int, str]) -> str | None:
    return None if span.parent is None else names[span.parent.span_id]


async def test_span_of_cancelled_call_is_ended(exported: Exported, service: DatabaseSessionService) -> None:
    session = await service.create_session(APP, USER, "s")

    async def append(scope: anyio.CancelScope) -> None:
        with scope:
            await service.append_event(session, event())

    scope = anyio.CancelScope()
    async with anyio.create_task_group() as group:
        with writer_at_rest(service):
            group.start_soon(append, scope)
            await a_while()
            scope.cancel()
            await a_while()
    (span,) = [span for span in exported.spans() if span.name.startswith("append_event")]
    assert attributes_of(span)["error.type"] == "cancelled"
    assert span.status.status_code is StatusCode.ERROR
    assert exported.operations()["append_event", "sqlite", "cancelled"] == 1


async def test_span_of_coroutine_closed_with_its_loop_is_ended(
    exported: Exported, service: DatabaseSessionService
) -> None:
    await service.create_session(APP, USER, "s")
    flushing = service.flush()
    with writer_at_rest(service):
        flushing.send(None)
        flushing.close()
    (span,) = [span for span in exported.spans() if span.name.startswith("flush")]
    assert attributes_of(span)["error.type"] == "cancelled"
