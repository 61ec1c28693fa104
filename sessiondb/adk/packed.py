"""Decoded events as plain tuples, from which any number of equal events can be made that share nothing with each other.

Several readers of a log must not see each other's changes, at any depth, so each gets models of its own. To decode the
log's JSON for each of them costs more than to make them of these tuples. To keep decoded models and copy them costs
more as well, in the end: the garbage collector looks at every model that is kept, again and again; a tuple of texts and
numbers it leaves alone.

A model becomes a tuple of its values and the number of its *shape*, which is everything about it but the values: its
class, which fields were given, what is None. A process meets a few dozen shapes. Each is tried on the model that it was
first met in, since where pydantic keeps the fields may change in any release: what does not come back equal is not
packed.
"""

from __future__ import annotations

import copy
import enum
import itertools
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from typing import Any, NamedTuple, TypeAlias, get_args

from pydantic import BaseModel
from pydantic_core import from_json, to_json

from sessiondb.adk.values import is_json
from sessiondb.logger import logger

Packed: TypeAlias = tuple[Any, ...]
"""The values of a model; the last member is the number of its shape."""

_MAX_SHAPES = 4096
"""More are met only where somebody makes up the names of enum members, say: such models stay unpacked."""

_IMMUTABLE = frozenset({str, int, float, bytes, datetime, date, time, timedelta})

# To ask it whether an object is an instance of BaseModel takes ten times as long as to ask for the class of its class.
_MODEL_CLASS = type(BaseModel)

_new = object.__new__


def _setter(name: str) -> Callable[[BaseModel, object], None]:
    setter: Callable[[BaseModel, object], None] = BaseModel.__dict__[name].__set__
    return setter


# Where pydantic keeps them; it has no function that sets them without validation, but for one that is much slower.
_set_dict = _setter("__dict__")
_set_fields_set = _setter("__pydantic_fields_set__")
_set_extra = _setter("__pydantic_extra__")
_set_private = _setter("__pydantic_private__")


class _Shape:
    """What models of one shape have in common.

    Attributes:
        kind: Their class.
        fields: All fields in order, with the value that all of these models have.
        values: The fields whose values are in the tuple as they are, and where.
        makers: The fields whose values are made of what is in the tuple, and where, and by what.
        given: The names of the fields that were given.
        set: The same, shared by the models made of late.
        extra: What pydantic keeps beside the fields: fields that are not declared,
        private: and private attributes.
    """

    __slots__ = ("extra", "fields", "given", "kind", "makers", "private", "set", "values")

    def __init__(self, plan: _Plan, model: BaseModel, constants: tuple[object, ...]) -> None:
        self.kind = type(model)
        self.fields = {**dict.fromkeys(model.__dict__), **dict(zip(plan.constants, constants, strict=True))}
        self.values = tuple((name, index) for index, name in enumerate(plan.names))
        others = enumerate(plan.others, len(plan.names))
        self.makers = tuple((name, index, way.make) for index, (name, way) in others)
        self.given = frozenset(model.__pydantic_fields_set__)
        self.set = set(self.given)
        self.extra = model.__pydantic_extra__
        self.private = copy.copy(model.__pydantic_private__)


class _Way(NamedTuple):
    """How to pack values of some kind, and to make them again."""

    pack: Callable[[Any], object]
    make: Callable[[Any], object]


class _Plan:
    """How to pack the models of one class that have values of the same types in the same fields.

    Attributes:
        names: The fields whose values are kept as they are.
        constants: The fields whose values are part of the shape.
        others: The other fields.
        shapes: The numbers of the shapes, by the constants and the fields that were given; None: its trial failed.
    """

    __slots__ = ("constants", "names", "others", "shapes")

    def __init__(self, model: BaseModel) -> None:
        kinds = {name: type(value) for name, value in model.__dict__.items() if value is not None}
        self.names = tuple(name for name, kind in kinds.items() if kind in _IMMUTABLE)
        self.constants = tuple(name for name, kind in kinds.items() if kind is bool or issubclass(kind, enum.Enum))
        rest = kinds.keys() - {*self.names, *self.constants}
        self.others = [
            (name, _way_of(kind, type(model).model_fields[name].annotation))
            for name, kind in kinds.items()
            if name in rest
        ]
        self.shapes: dict[object, int | None] = {}


_plans: dict[object, _Plan] = {}
_shapes: dict[int, _Shape] = {}
_next_number = itertools.count().__next__


def pack(model: BaseModel) -> Packed | None:
    """Returns a model as a tuple; None if it holds something that a tuple cannot stand for.

    The model must not be changed meanwhile.
    """
    try:
        return _pack(model)
    except _NotPackableError:
        return None


def unpack(packed: Packed) -> Any:
    """Makes an equal model, which shares no value that can be changed with any other.

    But for the set of fields that were given: a copy of it would be one more object for the garbage collector to visit,
    for each model in each model, and an assignment to one model only adds a name to it.
    """
    shape = _shapes[packed[-1]]
    fields = shape.fields.copy()
    for name, index in shape.values:
        fields[name] = packed[index]
    for name, index, make in shape.makers:
        fields[name] = make(packed[index])
    given = shape.set
    if len(given) != len(shape.given):
        # Somebody has assigned to a model made earlier. What is made from here on does not know.
        given = shape.set = set(shape.given)
    model = _new(shape.kind)
    _set_dict(model, fields)
    _set_fields_set(model, given)
    _set_extra(model, None if shape.extra is None else {})
    private = shape.private
    _set_private(model, None if private is None else private.copy())
    return model


def value_of(packed: Packed, field: str) -> Any:
    """Returns the value of a field that holds a text or a number."""
    shape = _shapes[packed[-1]]
    return next((packed[index] for name, index in shape.values if name == field), shape.fields[field])


class _NotPackableError(Exception):
    """Never leaves this module."""


def _pack(model: BaseModel) -> Packed:
    extra, private = model.__pydantic_extra__, model.__pydantic_private__
    if extra or (private and any(value is not None for value in private.values())):
        raise _NotPackableError
    fields = model.__dict__
    names = [name for name, value in fields.items() if value is not None]
    kinds = [type(value) for value in fields.values() if value is not None]
    key = (type(model), *names, *kinds)
    plan = _plans.get(key)
    if plan is None:
        plan = _Plan(model)
        if len(_plans) < _MAX_SHAPES:
            _plans[key] = plan
    values = [fields[name] for name in plan.names]
    for name, way in plan.others:
        values.append(way.pack(fields[name]))
    constants = tuple([fields[name] for name in plan.constants])
    shape = (constants, frozenset(model.__pydantic_fields_set__), extra is None, private is None)
    number = plan.shapes.get(shape, -1)
    if number == -1:
        number = plan.shapes[shape] = _tried(_Shape(plan, model, constants), values, model)
    if number is None:
        raise _NotPackableError
    values.append(number)
    return tuple(values)


def _way_of(kind: type, annotation: object) -> _Way:
    """Returns the way for values that can be changed, by their type and the annotation of their field."""
    if isinstance(kind, _MODEL_CLASS):
        return _MODEL
    if kind is set:
        return _SET
    if kind is list:
        return _LIST if _names_model(annotation) else _JSON
    if kind is dict:
        return _DICT if _names_model(annotation) else _JSON
    raise _NotPackableError


def _names_model(annotation: object) -> bool:
    return isinstance(annotation, _MODEL_CLASS) or any(map(_names_model, get_args(annotation)))


def _pack_json(value: object) -> bytes:
    # A member of a str enum, say, is no text, though it equals one.
    if not is_json(value):
        raise _NotPackableError
    return to_json(value)


def _pack_list(value: list[object]) -> tuple[Packed, ...]:
    return tuple([_pack(_checked(member)) for member in value])


def _pack_dict(value: dict[str, object]) -> tuple[tuple[str, Packed], ...]:
    return tuple([(key, _pack(_checked(member))) for key, member in value.items()])


def _pack_set(value: set[object]) -> Packed:
    if all(type(member) in _IMMUTABLE for member in value):
        return tuple(value)
    raise _NotPackableError


def _checked(member: object) -> BaseModel:
    if isinstance(type(member), _MODEL_CLASS):
        return member  # type: ignore[return-value]  # its class says so
    raise _NotPackableError


_MODEL = _Way(_pack, unpack)
_LIST = _Way(_pack_list, lambda packed: [unpack(member) for member in packed])
_DICT = _Way(_pack_dict, lambda packed: {key: unpack(member) for key, member in packed})
_SET = _Way(_pack_set, set)
_JSON = _Way(_pack_json, from_json)


def _tried(shape: _Shape, values: list[object], model: BaseModel) -> int | None:
    """Returns the number of a new shape, if the model is made of it as it was; None if not."""
    if len(_shapes) >= _MAX_SHAPES:
        raise _NotPackableError
    number = _next_number()
    _shapes[number] = shape
    try:
        made = unpack((*values, number))
        if made == model and made.__getstate__() == model.__getstate__():
            return number
        reason = "a copy differs"
    except Exception as error:  # noqa: BLE001  # pydantic's internals: whatever fails, events are decoded again
        reason = type(error).__name__
    del _shapes[number]
    logger.warning("fast_event_copies_unavailable", model=type(model).__name__, reason=reason)
    return None
