"""What is left of an event that is redacted."""

from __future__ import annotations

import json
from typing import Any

from google.adk.events import Event
from google.genai import types

from sessiondb.adk.events import encode_event, event_as_dict
from sessiondb.errors import CorruptRowError, InvalidInputError
from sessiondb.model.commands import RedactedEvent
from sessiondb.model.records import REDACTED_AT, STORED_NONE, EventRow, SessionKey, named

# All others may hold, or tell of, what was said. So may those that a later ADK brings.
_KEPT_FIELDS = (
    "partial",
    "turn_complete",
    "turn_complete_reason",
    "interaction_status",
    "finish_reason",
    "error_code",
    "interrupted",
    "model_version",
    "usage_metadata",
    "node_info",
    "long_running_tool_ids",
    "branch",
    "isolation_scope",
    STORED_NONE,
)
_KEPT_ACTIONS = (
    "skip_summarization",
    "artifact_delta",
    "transfer_to_agent",
    "escalate",
    "end_of_agent",
    "rewind_before_invocation_id",
    "route",
)

_NEVER_EXECUTED = "__adk_internal_restored_event"
"""A key of ``custom_metadata`` by which ADK knows calls that are history only: its check of the integrity of calls passes over
them, and lets none of them be executed."""


class Replacement:
    """What stands in the place of what was said."""

    def __init__(self, given: str | types.Content | None) -> None:
        """Encodes it.

        Args:
            given: A text, a Content, or None: nothing.

        Raises:
            InvalidInputError: If it cannot be stored, or holds function calls or responses.
        """
        if given is not None and not isinstance(given, str | types.Content):
            raise InvalidInputError(f"replacement must be a str, a Content or None, not {type(given).__name__}")
        self.text = given if isinstance(given, str) else None
        content = types.Content(parts=[types.Part(text=given)]) if isinstance(given, str) else given
        stored = encode_event(Event(content=content)).record.content
        fields: dict[str, Any] = {} if stored is None else json.loads(stored)
        self.role: str | None = fields.get("role")
        self.parts: list[dict[str, Any]] = fields.get("parts", [])
        if any("function_call" in part or "function_response" in part for part in self.parts):
            raise InvalidInputError(
                "replacement holds a function call or a function response; those of an event stay, without what is in them"
            )


def redact(row: EventRow, key: SessionKey, replacement: Replacement, timestamp: str) -> RedactedEvent:
    """Takes out of an event what it holds, but for state; it is looked at as JSON, whether ADK could read it or not.

    Args:
        row: The event.
        key: Its session, of which an error speaks.
        replacement: What stands in the place of what was said.
        timestamp: The moment that is put on record.

    Raises:
        CorruptRowError: If the row does not hold JSON objects.
    """
    fields = event_as_dict(row, key)
    try:
        actions = fields["actions"]
        content = _redacted_content(fields.get("content"), replacement)
        kept_actions = {"state_delta": actions.get("state_delta", {})}
        kept_actions |= {name: actions[name] for name in _KEPT_ACTIONS if name in actions}
        compaction = actions.get("compaction")
        if compaction is not None:
            summary = _redacted_content(compaction["compacted_content"], replacement) or {}
            kept_actions["compaction"] = {**compaction, "compacted_content": summary}
        extra = {name: fields[name] for name in _KEPT_FIELDS if name in fields}
        metadata: dict[str, Any] = {REDACTED_AT: timestamp}
        has_calls = content is not None and any("function_call" in part for part in content["parts"])
        if has_calls or (fields.get("custom_metadata") or {}).get(_NEVER_EXECUTED):
            metadata[_NEVER_EXECUTED] = True
        extra["custom_metadata"] = metadata
        left = None if content is None else _text(content), _text(kept_actions), _text(extra)
        return RedactedEvent(row.seq, row.event_id, *left)
    except (TypeError, AttributeError, KeyError, UnicodeEncodeError):
        raise CorruptRowError(
            f"event {row.seq} of {named(key)} does not hold what an event does; it was edited outside sessiondb"
        ) from None


def _redacted_content(content: dict[str, Any] | None, replacement: Replacement) -> dict[str, Any] | None:
    """Returns what is left of a content: the frames of its calls and responses, which the conversation cannot do without."""
    if content is None:
        return None
    parts: list[dict[str, Any]] = []
    said = False
    for part in content.get("parts") or ():
        if part.get("function_call") is not None:
            parts.append({"function_call": _names(part["function_call"])})
        elif part.get("function_response") is not None:
            response = {} if replacement.text is None else {"result": replacement.text}
            parts.append({"function_response": {**_names(part["function_response"]), "response": response}})
        else:
            said = True
    if said:
        parts = [*replacement.parts, *parts]
    if not parts:
        return None
    role = replacement.role or content.get("role")
    return {"parts": parts} if role is None else {"parts": parts, "role": role}


def _names(call: dict[str, Any]) -> dict[str, Any]:
    return {name: call[name] for name in ("id", "name") if name in call}


def _text(fields: dict[str, Any]) -> str:
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    text.encode()
    return text
