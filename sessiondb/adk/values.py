"""The caller's values, made plain before they are serialised.

pydantic reads an iterator up as it serialises it, so what it was given may be serialised once only; and it stops at text
that UTF-8 cannot hold. Most values need nothing of this: :func:`is_json` and :func:`is_plain` find that out without
serialising. The others are walked by :class:`Plainer`, once, which makes lists of iterators and of sets, and text of
what stands for text; what it returns may be serialised any number of times.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import itertools
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import PurePath
from types import NoneType
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, to_json

from sessiondb.adk.limits import MAX_EVENT_BYTES
from sessiondb.errors import InvalidInputError
from sessiondb.logger import logger

NO_JSON_FORM = (PydanticSerializationError, RecursionError, ValueError, TypeError)
"""The errors that serialising raises for a value that JSON cannot hold."""

DIGIT_LIMIT = 4300
"""The parser reads integers of up to this many digits, as int() does: sys.set_int_max_str_digits."""

MAY_BE_TOO_DEEP = 100
"""Opening brackets from which on a text is parsed as a check: pydantic writes JSON that is nested deeper than its parser
reads (about 200 levels), and no text is nested deeper than the number of its brackets, which are counted far faster."""

_JSON_LEAVES = frozenset({str, int, float, bool, NoneType})
LEAVES = _JSON_LEAVES | {bytes}
"""The types that the field of a model holds as they are."""

_TEXT = frozenset({str})

# Each item takes a character and a comma at least.
_MOST_ITEMS = MAX_EVENT_BYTES // 2

_KEY_CHARACTERS = 60
"""Of a key in the name of a place."""


def is_json(value: Any) -> bool:
    """Whether a value consists of the very types that a JSON parser makes."""
    kind = type(value)
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            return False
        members = value.values()
    elif kind is list:
        members = value
    else:
        return kind in _JSON_LEAVES
    # No call for each leaf: this is done for every state value.
    for member in members:  # noqa: SIM110  # all() would cost as much as the rest
        if type(member) not in _JSON_LEAVES and not is_json(member):
            return False
    return True


def is_plain(value: Any) -> bool:
    """Whether the field of a model holds what ADK itself puts there: models, enums, bytes, and in dicts JSON's types only.

    A dict may hold anything, and what is of another type comes back as JSON.
    """
    kind = type(value)
    if kind in LEAVES:
        return True
    if kind is dict:
        return is_json(value)
    if kind is list:
        members = value
    elif _is_model_of_adk(kind):  # type: ignore[arg-type]  # mypy: a type is not hashable
        if value.__pydantic_extra__:
            return False
        members = value.__dict__.values()
        if LEAVES.issuperset(map(type, members)):
            return True
    else:
        return _is_enum_of_adk(kind)  # type: ignore[arg-type]  # mypy: a type is not hashable
    for member in members:  # noqa: SIM110  # all() would cost as much as the rest
        if type(member) not in LEAVES and not is_plain(member):
            return False
    return True


@functools.lru_cache(maxsize=1024)
def _is_model_of_adk(kind: type[Any]) -> bool:
    return issubclass(kind, BaseModel) and kind.__module__.startswith("google.")


@functools.lru_cache(maxsize=1024)
def _is_enum_of_adk(kind: type[Any]) -> bool:
    return issubclass(kind, enum.Enum) and kind.__module__.startswith("google.")


class Place(NamedTuple):
    """Where a value is: in which place, and how that is read to get there. Written out for a message only."""

    outer: Place | None
    step: str | object
    kind: str = ""
    """How to write the step: ``.`` for the field of a model, ``[`` for an index or a key; "" for the outermost name."""

    def __str__(self) -> str:
        return self._written(lambda place: place.step_text())

    def without_keys(self) -> str:
        """Writes a place for a log, which no part of a value goes into: keys within values are left out."""

        def step_text(place: Place) -> str:
            is_within_value = place.outer is not None and place.outer.outer is not None
            return "[*]" if is_within_value and place.kind == "[" and type(place.step) is not int else place.step_text()

        return self._written(step_text)

    def step_text(self) -> str:
        """Writes out the last step."""
        if self.kind != "[":
            return f"{self.kind}{self.step}"
        if type(self.step) is int:
            return f"[{self.step}]"
        if isinstance(self.step, str):
            short = self.step[:_KEY_CHARACTERS]
            return f"[{short!a}]" if short == self.step else f"[{short!a}...]"
        # Its text may be anything.
        return f"[{type_name(self.step)}]"

    def _written(self, step_text: Callable[[Place], str]) -> str:
        steps = []
        place: Place | None = self
        while place is not None:
            steps.append(step_text(place))
            place = place.outer
        return "".join(reversed(steps)).removeprefix(".")


def type_name(value: object) -> str:
    """Names the type of a value, with its module if that is not Python's own."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Plainer:
    """Walks the values of one call, once.

    An iterator is read to its end, and its list takes its place in the caller's dict, list or model, so that a call that
    is refused and made again finds it there. Nothing else of the caller's is changed.
    """

    def __init__(self, *, for_state: bool) -> None:
        """Takes what the values are for: state takes values of any kind, an event what pydantic can serialise."""
        self._for_state = for_state
        self._bytes_as_text = for_state
        self._open: set[int] = set()
        self._taken = 0
        self._replaced: list[Place] = []

    def __call__(self, value: object, place: Place) -> Any:
        """Returns a value as lists, dicts, models, and leaves that may be serialised again.

        Raises:
            InvalidInputError: If an iterator fails or has no end, or a value of an event holds itself.
            RecursionError: If the value is nested too deep.
        """
        kind = type(value)
        if kind is str:
            return self._text(value, place)  # type: ignore[arg-type]  # kind says so
        if kind in _JSON_LEAVES:
            return value
        if isinstance(value, bytes | bytearray):
            return self._bytes(value)
        if isinstance(value, str) and not isinstance(value, enum.Enum):
            return self._text(str.__str__(value), place)
        if isinstance(value, PurePath):
            return self._text(str(value), place)
        if id(value) in self._open:
            if self._for_state:
                # As pydantic writes it.
                return "..."
            raise InvalidInputError(f"{place} is of type {type_name(value)} and holds itself")
        self._open.add(id(value))
        try:
            return self._container(value, place)
        finally:
            self._open.discard(id(value))

    def set_in(self, members: Any, name: Any, member: object, place: Place) -> Any:
        """Returns a member of a dict or list as a call does, and puts into its place what was read from an iterator."""
        taken = self._taken
        plain = self(member, place)
        if self._taken > taken and isinstance(members, dict | list) and not isinstance(member, dict | list | BaseModel):
            members[name] = plain
        return plain

    def report(self) -> None:
        """Logs where text was replaced, if it was: never the text."""
        if self._replaced:
            logger.warning(
                "lone_surrogate_replaced", place=self._replaced[0].without_keys(), places=len(self._replaced)
            )

    def _container(self, value: Any, place: Place) -> Any:
        if isinstance(value, BaseModel):
            return self.fields(value, place)
        if isinstance(value, dict) or (self._for_state and isinstance(value, Mapping)):
            return self._mapping(value, place)
        if isinstance(value, list):
            return [self.set_in(value, n, member, Place(place, n, "[")) for n, member in enumerate(value)]
        if isinstance(value, tuple | deque):
            return self._list(value, place)
        if isinstance(value, set | frozenset):
            return sorted(self._list(value, place), key=_sort_key)
        return self._object(value, place)

    def _object(self, value: Any, place: Place) -> Any:
        # What has a serialiser of its own is left to that.
        if isinstance(value, enum.Enum | type) or hasattr(type(value), "__pydantic_serializer__"):
            return value
        if dataclasses.is_dataclass(value):
            names = [field.name for field in dataclasses.fields(value)]
            return {name: self(getattr(value, name), Place(place, name, ".")) for name in names}
        # What pydantic takes for an iterator.
        return self._read_up(value, place) if hasattr(type(value), "__next__") else value

    def _list(self, members: Iterable[object], place: Place) -> list[Any]:
        return [self(member, Place(place, n, "[")) for n, member in enumerate(members)]

    def _mapping(self, value: Mapping[Any, Any], place: Place) -> dict[Any, Any]:
        plain = {}
        for name, member in value.items():
            inner = Place(place, name, "[")
            key = self._text(str.__str__(name), inner) if isinstance(name, str) else name
            plain[key] = self.set_in(value, name, member, inner)
        return plain

    def fields(self, model: BaseModel, place: Place, exclude: Container[str] = ()) -> BaseModel:
        """Returns a model whose fields are plain, but for those left out; itself if they are so already.

        Raises what a call raises.
        """
        # A model may say what JSON makes of its bytes. Where it says nothing, UTF-8 is what it is read as: ADK's own models
        # keep to that, others come back as dicts.
        bytes_as_text = self._bytes_as_text
        of_adk = _is_model_of_adk(type(model))
        self._bytes_as_text = not of_adk and model.model_config.get("ser_json_bytes", "utf8") == "utf8"
        changed = {}
        try:
            for members in (model.__dict__, model.__pydantic_extra__ or {}):
                for name, member in members.items():
                    if name not in exclude:
                        plain = self.set_in(members, name, member, Place(place, name, "."))
                        if plain is not member:
                            changed[name] = plain
        finally:
            self._bytes_as_text = bytes_as_text
        return model.model_copy(update=changed) if changed else model

    def _read_up(self, iterator: Iterator[object], place: Place) -> list[Any]:
        try:
            items = list(itertools.islice(iterator, _MOST_ITEMS + 1))
        except Exception as error:  # noqa: BLE001  # the caller's own code runs here
            raise InvalidInputError(
                f"{place} is of type {type_name(iterator)} and cannot be read to its end ({type(error).__name__})"
            ) from None
        self._taken += 1
        if len(items) > _MOST_ITEMS:
            raise InvalidInputError(f"{place} is of type {type_name(iterator)} and has more than {_MOST_ITEMS} items")
        return self._list(items, place)

    def _text(self, text: str, place: Place) -> str:
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            self._replaced.append(place)
            return "".join("\N{REPLACEMENT CHARACTER}" if "\ud800" <= char <= "\udfff" else char for char in text)
        return text

    def _bytes(self, value: bytes | bytearray) -> str | bytes | bytearray:
        if not self._bytes_as_text:
            return value
        try:
            return value.decode()
        except UnicodeDecodeError:
            return urlsafe_b64encode(value).decode()


def _sort_key(member: object) -> bytes:
    return to_json(member, serialize_unknown=True, bytes_mode="base64")


def describe_refusal(value: object, place: Place, *, for_state: bool = False, exclude: Container[str] = ()) -> str:
    """Says of what a :class:`Plainer` returned where it holds something that cannot be stored, and of which type.

    Args:
        value: What it returned.
        place: Where that is.
        for_state: As the Plainer was told.
        exclude: Fields of the outermost model that do not count.
    """
    whole = f"{place} is of type {type_name(value)} and cannot be read again: JSON may be nested about 190 levels deep"
    try:
        return next(_refused(value, place, for_state, exclude), whole)
    except RecursionError:
        return whole


def _refused(value: object, place: Place, for_state: bool, exclude: Container[str] = ()) -> Iterator[str]:
    if isinstance(value, BaseModel):
        for name, member in {**value.__dict__, **(value.__pydantic_extra__ or {})}.items():
            if name not in exclude:
                yield from _refused(member, Place(place, name, "."), for_state)
    elif type(value) is dict:
        for name, member in value.items():
            inner = Place(place, name, "[")
            if type(name) not in LEAVES and not _is_taken({name: None}, for_state):
                yield f"{inner} has a key of type {type_name(name)}, which has no JSON form"
            yield from _refused(member, inner, for_state)
    elif type(value) is list:
        for index, member in enumerate(value):
            yield from _refused(member, Place(place, index, "["), for_state)
    elif isinstance(value, int) and abs(value) >= 10**DIGIT_LIMIT:
        yield f"{place} is of type {type_name(value)} and has more than {DIGIT_LIMIT} digits, which cannot be read again"
    elif type(value) not in LEAVES and not _is_taken(value, for_state):
        yield f"{place} is of type {type_name(value)}, which has no JSON form"


def _is_taken(value: object, for_state: bool) -> bool:
    try:
        to_json(value, serialize_unknown=for_state, bytes_mode="utf8" if for_state else "base64")
    except NO_JSON_FORM:
        return False
    return True
