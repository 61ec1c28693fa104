"""Decodes events of the log, several times faster than ``Event.model_validate_json``.

The log was written from the fields of events. So three steps of the ordinary way have no effect, and they take two
thirds of its time: Event's validator of convenience arguments (``message=``, ``state=``), google-genai's warning about
models of the wrong class (JSON holds no models), and the constructor of ``Part`` for positional arguments. This module
compiles ADK's schema without the three; all types, constraints and other validators stay. The compiled validator is
compared with the ordinary one on a sample, once; if the result differs, the ordinary one is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types
from pydantic import TypeAdapter
from pydantic_core import SchemaValidator, core_schema

from sessiondb.logger import logger

_WITHOUT_EFFECT = {"_accept_convenience_kwargs", "_check_field_type_mismatches"}


def event_validator() -> Callable[[str], Event]:
    """Returns a function that decodes the JSON of an event, and raises ``pydantic.ValidationError`` if it cannot."""
    return validators()[0]


def events_validator() -> Callable[[str], list[Event]]:
    """Returns the same for a JSON array of events: for each of many, that saves an eighth of the time."""
    return validators()[1]


@functools.cache
def validators() -> tuple[Callable[[str], Event], Callable[[str], list[Event]]]:
    """Returns both. They are compiled at the first call, as not every process reads events."""
    ordinary: Callable[[str], Event] = Event.model_validate_json
    try:
        schema = _reduced(Event.__pydantic_core_schema__)
        # Without this argument pydantic would reuse the validators of ADK's classes, with the three steps.
        reduced: Callable[[str], Event] = SchemaValidator(schema, _use_prebuilt=False).validate_json
        many: Callable[[str], list[Event]] = SchemaValidator(_list_of(schema), _use_prebuilt=False).validate_json
        sample = _sample().model_dump_json(exclude_none=True)
        event = ordinary(sample)
        if reduced(sample) == event and many(f"[{sample},{sample}]") == [event, event]:
            return reduced, many
        reason = "it reads an event differently"
    except Exception as error:  # noqa: BLE001  # pydantic's internals: whatever fails, the ordinary way is used
        reason = type(error).__name__
    logger.warning("fast_event_validator_unavailable", reason=reason)
    return ordinary, TypeAdapter(list[Event]).validate_json


def _list_of(schema: Any) -> Any:
    if schema["type"] == "definitions":
        return {**schema, "schema": core_schema.list_schema(schema["schema"])}
    return core_schema.list_schema(schema)


def _reduced(node: Any) -> Any:
    if isinstance(node, list):
        return [_reduced(child) for child in node]
    if not isinstance(node, dict):
        return node
    reduced = {name: _reduced(child) for name, child in node.items()}
    if reduced.get("type") == "function-before" and _function_name(reduced) in _WITHOUT_EFFECT:
        return reduced["schema"]
    if reduced.get("type") == "model" and reduced["cls"] is types.Part:
        reduced["custom_init"] = False
    return reduced


def _function_name(schema: dict[str, Any]) -> str:
    return getattr(schema["function"].get("function"), "__name__", "")


def _sample() -> Event:
    parts = [
        types.Part(text="text", thought=True, thought_signature=b"\xff\x00"),
        types.Part(inline_data=types.Blob(data=b"\x00\xfe", mime_type="image/png")),
        types.Part(function_call=types.FunctionCall(id="c", name="f", args={"x": [1, None, {"y": 0.5}]})),
        types.Part(function_response=types.FunctionResponse(id="c", name="f", response={"r": "s"})),
    ]
    return Event(
        id="e",
        invocation_id="i",
        author="a",
        timestamp=1.5,
        content=types.Content(role="model", parts=parts),
        actions=EventActions(state_delta={"k": None, "user:l": [1]}, artifact_delta={"f": 1}, route=["r", 1, True]),
        long_running_tool_ids={"c"},
        custom_metadata={"m": {"n": 1}},
        usage_metadata=types.GenerateContentResponseUsageMetadata(total_token_count=3),
        error_code="code",
        branch="a.b",
    )
