"""Records as JSON and back, driven by the annotations in `records.py`.

The JSON is canonical (sorted keys, no spaces, ASCII), so equal records give equal text. It is also strict JSON: a
float that JSON cannot hold is written as the string "nan", "inf" or "-inf" and read back by the field's type. An
enumeration is written by name. Operator arguments, which may be of several types, carry a tag:

    Ref("add", 1)        {"ref": "add", "index": 1}
    DTypeArg("float16")  {"dtype": "float16"}
    -inf                 {"float": "-inf"}

A field that is missing takes its default, so that records may gain fields; an unknown field is an error. A field that
was gained is left out where it has its default, so that the texts of older records stay as they are. Device code
in binary form is not among the records that are stored.
"""

from __future__ import annotations

import json
import math
import types
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from warpsmith.errors import ArchiveError
from warpsmith.records import DTypeArg, Launch, Node, Ref

Record = TypeVar("Record")


def dumps(value: Any) -> str:
    """Return canonical JSON text of plain values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def encode(record: Any) -> str:
    """Return a record, or a tuple of records or plain values, as canonical JSON text."""
    return dumps(to_plain(record))


def decode(kind: type[Record], text: str) -> Record:
    """Return the record of type `kind` that `encode` turned into `text`.

    Raises ArchiveError where the text is not JSON or does not describe such a record.
    """
    try:
        record: Record = _from_plain(kind, json.loads(text))
    except (ValueError, TypeError, KeyError) as error:
        name = getattr(kind, "__name__", str(kind))
        raise ArchiveError(f"the archive holds a {name} that cannot be read: {error}") from error
    return record


def to_plain(value: Any) -> Any:
    """Return a record as dictionaries, lists, strings and numbers that JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        return {
            item.name: (_arg_to_plain if (kind, item.name) in _ARGUMENTS else to_plain)(getattr(value, item.name))
            for item in fields(value)
            if (kind, item.name) not in _GAINED or getattr(value, item.name) != item.default
        }
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (tuple, list)):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"a {type(value).__name__} is not stored in the archive")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


# Fields whose values may be of several types that only a tag can tell apart.
_ARGUMENTS = frozenset({(Node, "args"), (Node, "kwargs")})
_GAINED = frozenset({(Launch, "overlap")})


def _arg_to_plain(value: Any) -> Any:
    if isinstance(value, Ref):
        return {"ref": value.name, "index": value.index}
    if isinstance(value, DTypeArg):
        return {"dtype": value.name}
    if isinstance(value, tuple):
        return [_arg_to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return to_plain(value)


def _arg_from_plain(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_arg_from_plain(item) for item in value)
    if isinstance(value, dict):
        if "ref" in value:
            return Ref(value["ref"], value["index"])
        return DTypeArg(value["dtype"]) if "dtype" in value else float(value["float"])
    return value


def _from_plain(hint: Any, value: Any) -> Any:
    """Return `value` as the type that `hint` names; raises TypeError or ValueError where it is not one."""
    origin = get_origin(hint)
    if origin is tuple:
        return _tuple_from_plain(get_args(hint), value)
    if origin in (Union, types.UnionType):
        return _union_from_plain(get_args(hint), value)
    if origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{value!r} is not one of {get_args(hint)}")
        return value
    if is_dataclass(hint):
        return _dataclass_from_plain(hint, value)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint[value]
    if hint is float and type(value) in (int, float, str):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    raise TypeError(f"{value!r} is not a {hint}")


def _tuple_from_plain(items: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is not a list")
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(_from_plain(items[0], item) for item in value)
    return tuple(_from_plain(item_hint, item) for item_hint, item in zip(items, value, strict=True))


def _union_from_plain(choices: tuple[Any, ...], value: Any) -> Any:
    """Records use unions for "or None", and for "a name or an integer": the JSON type decides."""
    if value is None and type(None) in choices:
        return None
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) == 1:
        return _from_plain(rest[0], value)
    if type(value) in rest:
        return value
    raise TypeError(f"{value!r} is none of {rest}")


def _dataclass_from_plain(kind: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is not a {kind.__name__}")
    hints = _hints(kind)
    known = {item.name: item for item in fields(kind)}
    if unknown := set(value) - set(known):
        raise ValueError(f"{kind.__name__} has no field {', '.join(sorted(unknown))}")
    for name, item in known.items():
        if name not in value and item.default is MISSING and item.default_factory is MISSING:
            raise KeyError(f"{kind.__name__} lacks {name}")
    return kind(
        **{
            name: _arg_from_plain(content) if (kind, name) in _ARGUMENTS else _from_plain(hints[name], content)
            for name, content in value.items()
        }
    )
