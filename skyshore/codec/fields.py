"""The fields of a dataclass or a NamedTuple, as its type hints declare them."""

from __future__ import annotations

import dataclasses
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One field. A hint `tuple[X, ...] | None` gives type X, `repeated` and `optional`."""

    name: str
    type: Any
    repeated: bool
    optional: bool
    default: Any
    """`dataclasses.MISSING` without a default, or with a default factory."""


def fields_of(cls: type[Any]) -> tuple[Field, ...]:
    """Fields in the order of their declaration.

    Raises:
        TypeError: `cls` is neither a dataclass nor a NamedTuple, or has a tuple of mixed types.
    """
    hints = get_type_hints(cls)
    return tuple(_field(f"{cls.__name__}.{name}", name, hints[name], default) for name, default in _defaults(cls))


def has_fields(hint: Any) -> bool:
    """Whether `hint` is a class that `fields_of` can read."""
    return isinstance(hint, type) and (dataclasses.is_dataclass(hint) or _is_named_tuple(hint))


def is_enum(hint: Any) -> bool:
    """Whether `hint` is an enumeration."""
    return isinstance(hint, type) and issubclass(hint, Enum)


def _is_named_tuple(cls: type[Any]) -> bool:
    return issubclass(cls, tuple) and hasattr(cls, "_fields")


def _defaults(cls: type[Any]) -> list[tuple[str, Any]]:
    if dataclasses.is_dataclass(cls):
        return [(field.name, field.default) for field in dataclasses.fields(cls)]
    if _is_named_tuple(cls):
        return [(name, cls._field_defaults.get(name, dataclasses.MISSING)) for name in cls._fields]
    raise TypeError(f"{cls.__name__} is neither a dataclass nor a NamedTuple")


def _field(where: str, name: str, hint: Any, default: Any) -> Field:
    optional = False
    if get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint):
        optional = True
        rest = [entry for entry in get_args(hint) if entry is not NoneType]
        hint = rest[0] if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007 - built at run time
    repeated = get_origin(hint) is tuple
    if repeated:
        inner = get_args(hint)
        if len(inner) != 2 or inner[1] is not Ellipsis:
            raise TypeError(f"{where} is a tuple of mixed types; make it a NamedTuple")
        hint = inner[0]
    return Field(name, hint, repeated, optional, default)
