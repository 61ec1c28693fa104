"""Models with every field set, made from their own annotations: a field that a new ADK brings is set as well.

Values differ from the field's default and from each other, so that no field can stand in for another.
"""

from __future__ import annotations

import enum
import itertools
import types as python_types
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from fastapi.openapi.models import APIKey
from google.adk.auth.auth_credential import AuthCredential, AuthCredentialTypes, HttpAuth, HttpCredentials
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events import Event, EventActions
from pydantic import BaseModel

ModelT = TypeVar("ModelT", bound=BaseModel)

ODD_TEXT = "\"quoted\" 'too' \\ % _ \u2028 \x00 \x7f grün 日本 🤖"
ALL_BYTES = bytes(range(256))
FREE_FORM = {"nested": [1, 2.5, True, None, {"x": ODD_TEXT}], "large": 2**70, "": {}, "none": None, "e": []}


def auth_config() -> AuthConfig:
    """A request for credentials, as a tool makes it."""
    return AuthConfig(
        auth_scheme=APIKey.model_validate({"in": "header", "name": "x-api-key"}),
        raw_auth_credential=AuthCredential(
            auth_type=AuthCredentialTypes.HTTP,
            http=HttpAuth(scheme="basic", credentials=HttpCredentials(username="u", password="p")),  # noqa: S106
        ),
        credential_key="key",
    )


# What annotations do not say.
_BY_HAND: dict[tuple[type[BaseModel], str], Callable[[], object]] = {
    # A partial event is never stored.
    (Event, "partial"): lambda: False,
    # Declared as Any, and turned into AuthConfig when read.
    (EventActions, "requested_auth_configs"): lambda: {"call": auth_config()},
    (EventActions, "state_delta"): lambda: {"own": FREE_FORM, "user:theme": "dark", "app:version": 1, "gone": None},
}


class Filler:
    """Sets every field of a model, and of the models inside it."""

    def __init__(self) -> None:
        self._numbers = itertools.count(3)

    def model(self, kind: type[ModelT]) -> ModelT:
        return kind(**{name: self.field(kind, name) for name in kind.model_fields})

    def field(self, kind: type[BaseModel], name: str) -> Any:
        """A value for one field."""
        by_hand = _BY_HAND.get((kind, name))
        return by_hand() if by_hand else self._value(kind.model_fields[name].annotation, f"{kind.__name__}.{name}")

    def _value(self, annotation: Any, where: str) -> Any:
        origin, arguments = get_origin(annotation), get_args(annotation)
        if annotation is Any:
            return FREE_FORM
        if origin is Annotated:
            return self._value(arguments[0], where)
        if origin in (Union, python_types.UnionType):
            # The last alternative is the widest; each of them has a test of its own.
            return self._value([kind for kind in arguments if kind is not type(None)][-1], where)
        if origin is list:
            return [self._value(arguments[0], where)]
        if origin is set:
            return {self._value(arguments[0], where) for _ in range(3)}
        if origin is dict:
            return {ODD_TEXT: self._value(arguments[1], where)}
        if origin is Literal:
            return arguments[-1]
        if isinstance(annotation, type):
            return self._of_class(annotation, where)
        raise NotImplementedError(f"{where} is a {annotation!r}: say how to set it")

    def _of_class(self, kind: type, where: str) -> Any:
        number = next(self._numbers)
        if issubclass(kind, BaseModel):
            return self.model(kind)
        if issubclass(kind, enum.Enum):
            return list(kind)[-1]
        scalars: dict[type, object] = {
            bool: True,
            int: number,
            float: number + 0.1,
            str: f"{where} {number} {ODD_TEXT.replace(chr(0), '')}",
            bytes: ALL_BYTES + str(number).encode(),
            dict: FREE_FORM,
        }
        if kind not in scalars:
            raise NotImplementedError(f"{where} is a {kind!r}: say how to set it")
        return scalars[kind]


def full_event() -> Event:
    """An event with every field set, and with every field of all that is inside it."""
    return Filler().model(Event)


def unset_fields(model: BaseModel) -> Iterator[str]:
    """The fields, of a model and of all models inside it, that hold nothing but their default."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if value is None or (not field.is_required() and value == field.get_default(call_default_factory=True)):
            yield f"{type(model).__name__}.{name}"
        for inside in _models_in(value):
            yield from unset_fields(inside)


def _models_in(value: object) -> Iterator[BaseModel]:
    if isinstance(value, BaseModel):
        yield value
    elif isinstance(value, Mapping):
        for member in value.values():
            yield from _models_in(member)
    elif isinstance(value, list | tuple | set):
        for member in value:
            yield from _models_in(member)


def models_reached(kind: type[BaseModel]) -> set[type[BaseModel]]:
    """The models that an annotation somewhere inside of ``kind`` names, and ``kind``."""
    reached: set[type[BaseModel]] = set()
    waiting: list[Any] = [kind]
    while waiting:
        annotation = waiting.pop()
        waiting += get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in reached:
            reached.add(annotation)
            waiting += [field.annotation for field in annotation.model_fields.values()]
    return reached
