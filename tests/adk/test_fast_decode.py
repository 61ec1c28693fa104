"""The fast way to read events: it tells nothing apart from the ordinary one, and is left when it might."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from google.adk.events import Event
from pydantic import ValidationError

from sessiondb.adk import fast_decode
from tests.full_models import full_event


@pytest.fixture(autouse=True)
def _compiled_anew() -> Iterator[None]:
    fast_decode.validators.cache_clear()
    yield
    fast_decode.validators.cache_clear()


def test_fast_decode_gives_the_same_event() -> None:
    read = fast_decode.event_validator()
    assert read is not Event.model_validate_json
    for event in (full_event(), Event(author="agent")):
        for text in (event.model_dump_json(), event.model_dump_json(by_alias=True, exclude_none=True)):
            assert read(text) == Event.model_validate_json(text)
            assert fast_decode.events_validator()(f"[{text}, {text}]") == [read(text), read(text)]


@pytest.mark.parametrize(
    "text",
    [
        "{oops",
        "[]",
        '{"actions": {"field_of_tomorrow": 1}}',
        '{"content": {"parts": [{"hologram": 1}]}}',
        '{"content": {"parts": [{"thought": "perhaps"}]}}',
        '{"timestamp": "soon"}',
        '{"content": "hello"}',
    ],
)
def test_fast_decode_raises_the_same_validation_error(text: str) -> None:
    with pytest.raises(ValidationError) as ordinary:
        Event.model_validate_json(text)
    with pytest.raises(ValidationError) as fast:
        fast_decode.event_validator()(text)
    # Where is told alike; of what kind, not always: a model of the wrong class cannot come out of JSON.
    assert [error["loc"] for error in fast.value.errors()] == [error["loc"] for error in ordinary.value.errors()]


@pytest.mark.parametrize("failure", ["it cannot be compiled", "it reads something else"])
def test_fast_decode_falls_back_when_pydantic_changes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, failure: str
) -> None:
    if failure == "it cannot be compiled":
        monkeypatch.setattr(fast_decode, "_reduced", lambda schema: {"type": "of tomorrow"})
        reason = "SchemaError"
    else:
        monkeypatch.setattr(fast_decode, "_reduced", lambda schema: {"type": "any"})
        reason = "it reads an event differently"
    with caplog.at_level(logging.WARNING, logger="sessiondb"):
        read = fast_decode.event_validator()
    event = Event(author="agent", branch="b")
    assert read(event.model_dump_json()) == event
    assert read == Event.model_validate_json
    assert fast_decode.events_validator()(f"[{event.model_dump_json()}]") == [event]
    (record,) = caplog.records
    assert record.message == "fast_event_validator_unavailable"
    assert record.__dict__["reason"] == reason
