"""What hypothesis makes: ids, keys, values, deltas and events; and what storage makes of a value."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from google.adk.events import Event, EventActions
from google.genai import types
from hypothesis import strategies as st

ODD_NAMES = [
    "' OR 1=1--",
    "%",
    "_",
    "$.x",
    'say "x"',
    "back\\slash",
    "../..",
    "new\nline",
    "grün",
    "日本🤖",
    "e\u0301",
    "\u2028",
    "null",
    "a:b",
    "App:x",
    "0",
]

storable_text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
"""Text that can be an id or a key."""

any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Text that can be a value: NUL included."""

names = st.sampled_from(["s1", "s2"]) | st.sampled_from(ODD_NAMES) | storable_text
"""Ids; the first two come often, so that examples meet."""

state_keys = st.builds(
    "{}{}".format,
    st.sampled_from(["", "", "user:", "app:", "app:user:", "temp:"]),
    st.sampled_from(["a", "b", ""]) | st.sampled_from(ODD_NAMES) | storable_text,
)
"""Keys of all scopes; the short ones come often, so that deltas meet."""

numbers = (
    st.integers()
    | st.sampled_from([0, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**70])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.1 + 0.2, -0.0, 5e-324, 1.7e308, 1e16])
)

json_values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
"""What JSON holds, exactly."""

ordered_values = (
    st.just(math.nan)
    | st.sampled_from([math.inf, -math.inf])
    | st.binary(max_size=8)
    | st.datetimes(min_value=datetime(1900, 1, 1))  # noqa: DTZ001  # naive ones are values too
)
"""What JSON does not hold, and pydantic turns into something that it does, always the same."""

coerced_values = ordered_values | st.frozensets(st.integers(-20, 20), max_size=4)
"""What JSON does not hold, and storage turns into something that it does."""

state_values = st.recursive(
    json_values | coerced_values,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(any_text, inner, max_size=3)
        | st.dictionaries(st.integers(0, 9), inner, max_size=2)
    ),
    max_leaves=5,
)

deltas = st.dictionaries(state_keys, st.none() | state_values, max_size=4)

small_deltas = st.dictionaries(
    state_keys,
    st.none() | st.integers(0, 3) | numbers | any_text | coerced_values | st.just({"a": [None, b"x"]}),
    max_size=3,
)
"""Deltas that take little to draw."""

timestamps = st.sampled_from([1_000.0, 1_000.0, 999.5, 0.0, -1.0]) | st.floats(
    -62_135_596_800.0, 253_402_300_799.0
).map(lambda moment: moment + 0.0)
"""Moments that JSON and a calendar hold, without -0.0; some come often, so that there are ties."""


def _parts() -> st.SearchStrategy[types.Part]:
    arguments = st.dictionaries(any_text, json_values, max_size=3)
    return (
        st.builds(lambda text: types.Part(text=text), any_text)
        | st.builds(lambda data: types.Part.from_bytes(data=data, mime_type="x/y"), st.binary(max_size=20))
        | st.builds(lambda args: types.Part(function_call=types.FunctionCall(name="tool", args=args)), arguments)
        | st.builds(
            lambda answer: types.Part(function_response=types.FunctionResponse(name="tool", response=answer)), arguments
        )
    )


contents = st.builds(
    lambda role, parts: types.Content(role=role, parts=parts),
    st.sampled_from(["user", "model"]) | st.none(),
    st.lists(_parts(), max_size=3) | st.none(),
)

exact_events = st.builds(
    Event,
    author=st.sampled_from(["user", "agent"]) | storable_text,
    invocation_id=storable_text,
    timestamp=timestamps,
    content=st.none() | contents,
    custom_metadata=st.none() | st.dictionaries(any_text, json_values, max_size=2),
    output=json_values,
    branch=st.none() | any_text,
    turn_complete=st.none() | st.booleans(),
    long_running_tool_ids=st.none() | st.sets(any_text, max_size=3),
    actions=st.builds(EventActions, state_delta=st.just({}), escalate=st.none() | st.booleans()),
)
"""Events without a state delta, of values that come back as they are."""


def as_stored(value: Any) -> Any:
    """What a state value is read back as, by what the documentation says of each kind."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return base64.urlsafe_b64encode(value).decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(map(as_stored, value), key=json.dumps)
    if isinstance(value, Mapping):
        return {str(name): as_stored(member) for name, member in value.items()}
    assert isinstance(value, list | tuple)
    return [as_stored(member) for member in value]


def exactly(value: Any) -> str:
    """A text that tells apart what ``==`` does not: 1, 1.0 and True, 0.0 and -0.0. Key order does not count."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
