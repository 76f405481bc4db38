"""Domain values as JSON documents, by field name.

An enumeration becomes its value, bytes become base64, a tuple becomes an array, and a value with fields becomes an
object. Numbers and text stay as they are: a document that was read and is written again is equal to the bit.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from functools import cache
from operator import attrgetter
from typing import Any, TypeVar, get_origin

from skyshore.codec.fields import Field, fields_of, has_fields, is_enum

ValueT = TypeVar("ValueT")
Convert = Callable[[Any], Any]


def to_document(value: Any, *, omit_defaults: bool = False) -> dict[str, Any]:
    """`value`, a dataclass or a NamedTuple, as a dict that `json` can write.

    `omit_defaults` leaves out every field that has its default. Fields with a default factory are always written.
    """
    cls: Any = type(value)
    document: dict[str, Any] = _object_writer(cls, omit_defaults)(value)
    return document


def from_document(cls: Callable[..., ValueT], document: Mapping[str, Any]) -> ValueT:
    """The value of `cls` that `to_document` wrote; a field left out gets its default.

    Raises:
        ValueError: an enumeration has an unknown value.
        TypeError: a field is missing or unknown, or `document` has another form.
    """
    value: ValueT = _object_reader(cls)(document)
    return value


@cache
def _object_writer(cls: Any, omit_defaults: bool) -> Convert:
    fields = fields_of(cls)
    converters = [
        (field.name, convert) for field in fields if (convert := _field_converter(field, _writer(field, omit_defaults)))
    ]
    defaults = [(field.name, field.default) for field in fields] if omit_defaults else []
    names = [field.name for field in fields]

    def write(value: Any) -> dict[str, Any]:
        document = {name: getattr(value, name) for name in names}
        for name, default in defaults:
            if document[name] == default:
                del document[name]
        for name, convert in converters:
            if name in document:
                document[name] = convert(document[name])
        return document

    return write


@cache
def _object_reader(cls: Any) -> Convert:
    converters = [
        (field.name, convert) for field in fields_of(cls) if (convert := _field_converter(field, _reader(field.type)))
    ]

    def read(document: Any) -> Any:
        if not isinstance(document, dict):
            raise TypeError(f"{cls.__name__} must be a JSON object, not {str(document)[:40]!r}")
        content = document.copy()
        for name, convert in converters:
            if name in content:
                content[name] = convert(content[name])
        return cls(**content)

    return read


def _field_converter(field: Field, one: Convert | None) -> Convert | None:
    """Extend a converter of one value to repeated and optional ones; None stands for "as it is"."""
    if field.repeated:
        many: Convert | None = (lambda entries: tuple(map(one, entries))) if one else tuple
    else:
        many = one
    if many is None or not field.optional:
        return many
    return lambda entry: None if entry is None else many(entry)


def _writer(field: Field, omit_defaults: bool) -> Convert | None:
    if field.type is bytes:
        return lambda value: b64encode(value).decode()
    if is_enum(field.type):
        return attrgetter("value")
    if has_fields(field.type):
        return _object_writer(field.type, omit_defaults)
    return _copy_mapping if get_origin(field.type) is Mapping else None


def _copy_mapping(value: Any) -> Any:
    """Mappings of any class as dicts; `json` writes no others."""
    return {key: _copy_mapping(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value


def _reader(hint: Any) -> Convert | None:
    if hint is bytes:
        return b64decode
    if is_enum(hint):
        convert: Convert = hint
        return convert
    return _object_reader(hint) if has_fields(hint) else None
