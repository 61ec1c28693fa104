"""Events as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from .output import compact_json, print_json_line, safe_line, safe_text

if TYPE_CHECKING:
    from sessiondb.model.records import LoggedEvent

_CHARACTER_LIMIT = 300
"""Of one value, unless all is asked for."""

_INDENT = "    "

full_option = click.option("--full", is_flag=True, help="Do not shorten long texts and values.")


def print_event(event: LoggedEvent, *, as_json: bool, full: bool, with_session: bool) -> None:
    """Prints one event: a head line, and below it, indented, what it says and does.

    Args:
        event: The event.
        as_json: Print one line of JSON instead.
        full: Do not shorten long texts and values.
        with_session: Name the session in the head line.
    """
    from sessiondb.adk.events import event_as_dict

    _, key, row = event
    fields = event_as_dict(row, key)
    if as_json:
        print_json_line({**key._asdict(), "seq": row.seq, "event": fields})
        return
    head = f"#{row.seq}  {safe_line(row.timestamp)}  {click.style(safe_line(row.author), bold=True)}"
    if with_session:
        head += "  " + click.style(safe_line("/".join(key)), dim=True)
    click.echo(head)
    for line in _body(fields):
        shown = line if full or len(line) <= _CHARACTER_LIMIT else f"{line[:_CHARACTER_LIMIT]}… (--full shows all)"
        for physical in shown.split("\n"):
            click.echo(_INDENT + physical)


def _body(fields: dict[str, Any]) -> Iterator[str]:
    from sessiondb.adk.events import stored_nones

    content = fields.get("content")
    for part in _list(content.get("parts")) if isinstance(content, dict) else ():
        yield from _part_lines(part)
    if "error_code" in fields or "error_message" in fields:
        yield safe_text(f"error {fields.get('error_code', '')}: {fields.get('error_message', '')}")
    actions = dict(fields["actions"])
    delta = actions.pop("state_delta", {})
    for key, value in delta.items() if isinstance(delta, dict) else ():
        is_deleted = value is None and key not in stored_nones(fields)
        yield f"state {safe_line(key)} " + ("deleted" if is_deleted else f"= {compact_json(value)}")
    if actions:
        yield f"actions {compact_json(actions)}"


def _part_lines(part: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        yield compact_json(part)
        return
    for kind, value in part.items():
        if kind == "text":
            yield ("(thought) " if part.get("thought") else "") + safe_text(str(value))
        elif kind in ("function_call", "function_response") and isinstance(value, dict):
            verb, payload = ("call", "args") if kind == "function_call" else ("response", "response")
            yield f"{verb} {safe_line(str(value.get('name', '')))} {compact_json(value.get(payload, {}))}"
        elif kind == "inline_data" and isinstance(value, dict):
            # Base64: four characters stand for three bytes.
            size = len(str(value.get("data", ""))) * 3 // 4
            yield f"data {safe_line(str(value.get('mime_type', '')))}, about {size:,} bytes"
        elif kind not in ("thought", "thought_signature"):
            yield f"{safe_line(kind)} {compact_json(value)}"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
