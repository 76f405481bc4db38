"""Conversion between protobuf messages and domain values by field name, derived once per pair of classes.

A `Pair` compares the fields of its message and its class when it is made, so a field that only one of them has is found
when the program is imported. It then compiles one function per direction, as `dataclasses` does: straight code, as fast
as if it were written by hand.

======================  ================================================================
message field           class field
======================  ================================================================
number or bool          int, float or bool
string or bytes         str or bytes
enum COLOUR_RED         member RED of an Enum; COLOUR_UNSPECIFIED is None if the class
                        field is optional, else an error
message                 a class that has a pair
optional                X | None
repeated                tuple[X, ...]
======================  ================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from skyshore.codec.fields import Field, fields_of, has_fields, is_enum
from skyshore.domain.errors import BadMessage, InvalidTask, SkyshoreError

MessageT = TypeVar("MessageT", bound=Message)
ValueT = TypeVar("ValueT")

PAIRS: dict[type[Any], Pair[Any, Any]] = {}
"""Every pair, by its class."""

_SCALARS: dict[int, type[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: int,
    FieldDescriptor.CPPTYPE_INT64: int,
    FieldDescriptor.CPPTYPE_UINT32: int,
    FieldDescriptor.CPPTYPE_UINT64: int,
    FieldDescriptor.CPPTYPE_FLOAT: float,
    FieldDescriptor.CPPTYPE_DOUBLE: float,
    FieldDescriptor.CPPTYPE_BOOL: bool,
    FieldDescriptor.CPPTYPE_STRING: str,
}


class ByHand(NamedTuple):
    """Fields that have another form on the wire, with the functions that convert them."""

    class_fields: tuple[str, ...]
    message_fields: tuple[str, ...]
    write: Callable[[Any, Any], None]
    """Value, message → nothing; sets the message's fields."""
    read: Callable[[Any], dict[str, Any]]
    """Message → values of the class's fields, by name."""


class Pair(Generic[MessageT, ValueT]):
    """A message and the class of the same fields."""

    to_proto: Callable[[ValueT], MessageT]
    """Value → message."""
    from_proto: Callable[..., ValueT]
    """Message → value; fields that are off the wire are keyword arguments.

    Raises `error`, with the field as `param`, if an enum is missing or unknown; and whatever `check` raises.
    """

    def __init__(
        self,
        message: type[MessageT],
        cls: type[ValueT],
        *,
        off_wire: tuple[str, ...] = (),
        by_hand: ByHand | None = None,
        check: Callable[[ValueT], None] | None = None,
        error: type[SkyshoreError] = InvalidTask,
    ) -> None:
        """Derive both directions.

        Args:
            message: Generated class.
            cls: Dataclass or NamedTuple.
            off_wire: Fields of the class only. The reader gives them, or they get their default.
            by_hand: Fields that functions convert.
            check: Called with every value read; raises if it makes no sense.
            error: Raised for a missing or unknown enum.

        Raises:
            TypeError: the fields differ; the text names each difference.
        """
        fields = {field.name: field for field in fields_of(cls) if field.name not in off_wire}
        parts: dict[str, Any] = {part.name: part for part in message.DESCRIPTOR.fields}
        for name in by_hand.class_fields if by_hand else ():
            del fields[name]
        for name in by_hand.message_fields if by_hand else ():
            del parts[name]
        if differences := _differences(fields, parts):
            pair = f"{message.DESCRIPTOR.full_name} and {cls.__module__}.{cls.__qualname__}"
            raise TypeError(f"{pair} differ: {'; '.join(differences)}. Declare each field in both")
        self.message, self.cls = message, cls
        names: dict[str, Any] = {"message_type": message, "cls": cls, "by_hand": by_hand, "check": check}
        convert = [_expressions(field, parts[name], names, error) for name, field in fields.items()]
        writers = ", ".join(f"{name}={write}" for name, (write, _) in zip(fields, convert, strict=True))
        # Arguments in the order of the class's own fields are faster than keywords; with gaps they need their names.
        named = off_wire or by_hand
        readers = [f"{name}={read}" if named else read for name, (_, read) in zip(fields, convert, strict=True)]
        readers += ["**by_hand.read(message)"] * (by_hand is not None) + ["**given"] * bool(off_wire)
        self.to_proto = _compile(
            "value", f"message_type({writers})", "by_hand.write(value, result)" if by_hand else "", names
        )
        self.from_proto = _compile(
            "message, **given" if off_wire else "message",
            f"cls({', '.join(readers)})",
            "check(result)" if check else "",
            names,
        )
        PAIRS[cls] = self


class OneOf(Generic[MessageT]):
    """A message that carries one of several messages in its `oneof`; each has a pair."""

    def __init__(self, message: type[MessageT], oneof: str, sender: str) -> None:
        """`sender` names who sends it, for the error about an empty one."""
        by_message: dict[str, Any] = {pair.message.DESCRIPTOR.full_name: pair for pair in PAIRS.values()}
        members: Any = message.DESCRIPTOR.oneofs_by_name[oneof].fields
        pairs = {member.name: by_message[member.message_type.full_name] for member in members}
        self.message, self._oneof, self._sender = message, oneof, sender
        self._writers = {pair.cls: (name, pair.to_proto) for name, pair in pairs.items()}
        self._readers = {name: pair.from_proto for name, pair in pairs.items()}

    def to_proto(self, value: Any) -> MessageT:
        """Value → message."""
        name, write = self._writers[type(value)]
        return self.message(**{name: write(value)})

    def from_proto(self, message: MessageT) -> Any:
        """Message → value. Raises Internal if the message is empty, or carries something that this version lacks."""
        name = message.WhichOneof(self._oneof)
        if name is None:
            what = message.DESCRIPTOR.name
            raise BadMessage(f"{self._sender} sent an empty {what}; run the same version of Skyshore on both sides")
        return self._readers[name](getattr(message, name))


class _Members(dict[int, Any]):
    """Enum numbers → members."""

    def __init__(self, field: str, members: dict[int, Any], choices: list[str], error: type[SkyshoreError]) -> None:
        super().__init__(members)
        self._field, self._choices, self._error = field, choices, error

    def __missing__(self, number: int) -> Any:
        choices = ", ".join(self._choices)
        raise self._error(f"{self._field} is missing or unknown ({number}); set one of {choices}", param=self._field)


def _differences(fields: dict[str, Field], parts: dict[str, Any]) -> list[str]:
    found = [f"only the message has '{name}'" for name in parts.keys() - fields.keys()]
    found += [f"only the class has '{name}'" for name in fields.keys() - parts.keys()]
    for name in fields.keys() & parts.keys():
        field, part = fields[name], parts[name]
        if field.repeated != part.is_repeated:
            found.append(f"'{name}' is repeated in one of them only")
        elif not is_enum(field.type) and not has_fields(field.type) and field.optional != part.has_presence:
            found.append(f"'{name}' is optional in one of them only")
        elif problem := _type_difference(field, part):
            found.append(f"'{name}' {problem}")
    return sorted(found)


def _type_difference(field: Field, part: Any) -> str:
    if part.enum_type is not None:
        if not is_enum(field.type):
            return "is an enum in the message only"
        members = {_enum_prefix(part) + member for member in field.type.__members__}
        values = {value.name for value in part.enum_type.values if value.number}
        return f"has other members: {', '.join(sorted(members ^ values))}" if members != values else ""
    if part.message_type is not None:
        pair = PAIRS.get(field.type)
        known = pair is not None and pair.message.DESCRIPTOR.full_name == part.message_type.full_name
        return "" if known else f"needs a pair of {part.message_type.full_name} and {field.type!r}, declared before"
    scalar = bytes if part.type == FieldDescriptor.TYPE_BYTES else _SCALARS[part.cpp_type]
    return "" if field.type is scalar else f"is {scalar.__name__} in the message and {field.type!r} in the class"


def _enum_prefix(part: Any) -> str:
    """`TaskKind` → `TASK_KIND_`, the prefix of its members' names on the wire."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", part.enum_type.name).upper() + "_"


def _expressions(field: Field, part: Any, names: dict[str, Any], error: type[SkyshoreError]) -> tuple[str, str]:
    """Code that converts one field, to the message and from it; what the code needs is added to `names`."""
    name = field.name
    write, read = "{}", "{}"
    if is_enum(field.type):
        prefix, numbers = _enum_prefix(part), {value.name: value.number for value in part.enum_type.values}
        members: dict[int, Any] = {numbers[prefix + key]: member for key, member in field.type.__members__.items()}
        if field.optional:
            members[0] = None
        names[f"number_{name}"] = {member: number for number, member in members.items()}
        names[f"member_{name}"] = _Members(name, members, [key for key, value in numbers.items() if value], error)
        write, read = f"number_{name}[{{}}]", f"member_{name}[{{}}]"
    elif has_fields(field.type):
        pair = PAIRS[field.type]
        names[f"write_{name}"], names[f"read_{name}"] = pair.to_proto, pair.from_proto
        write, read = f"write_{name}({{}})", f"read_{name}({{}})"
    ours, theirs = f"value.{name}", f"message.{name}"
    if field.repeated:
        plain = write == "{}"
        return (
            ours if plain else f"[{write.format('entry')} for entry in {ours}]",
            f"tuple({theirs})" if plain else f"tuple([{read.format('entry')} for entry in {theirs}])",
        )
    written, value = write.format(ours), read.format(theirs)
    if field.optional and part.has_presence:
        written = written if write == "{}" else f"None if {ours} is None else {written}"
        value = f"{value} if message.HasField({name!r}) else None"
    return written, value


def _compile(arguments: str, result: str, then: str, names: dict[str, Any]) -> Callable[..., Any]:
    """The function that computes `result` and runs `then` on it."""
    body = f"    result = {result}\n    {then}\n    return result" if then else f"    return {result}"
    scope = dict(names)
    exec(f"def convert({arguments}):\n{body}\n", scope)  # the text holds field names of our own classes only
    convert: Callable[..., Any] = scope["convert"]
    return convert
