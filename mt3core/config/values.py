"""From text on the command line to the value of a config's field, by the field's annotation."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from mt3core.config.data import DatasetChoice
from mt3core.config.model import PRESETS, ModelConfig
from mt3core.errors import UsageError

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null")


def parse_value(owner: type, field: str, path: str, text: str) -> Any:
    """The value that `text` says for a field of the dataclass `owner`. `path` names it in errors.

    Known are int, float, bool, str, Literal, unions with None, tuples of these (with commas between them),
    `DatasetChoice` by its name, and `ModelConfig` by the name of a preset. Raises `UsageError` naming the type wanted.
    """
    kind = get_type_hints(owner)[field]
    try:
        return _parsed(kind, text)
    except _Unfit:
        raise UsageError(f"{path} cannot be {text!r}.", f"Give {_described(kind)}.") from None


class _Unfit(Exception):
    """The text is no value of the type."""


def _parsed(kind: Any, text: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _parsed_union(arguments, text)
    if origin is Literal:
        return _one_of({str(choice): choice for choice in arguments}, text)
    if origin is tuple:
        return _parsed_tuple(arguments, text)
    if kind is bool:
        return _one_of({**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}, text.lower())
    if kind in (int, float):
        return _number(kind, text)
    if kind is str:
        return text
    if kind is DatasetChoice:
        return DatasetChoice(_not_empty(text))
    if kind is ModelConfig:
        return _one_of(PRESETS, text)
    raise _Unfit


def _parsed_union(kinds: tuple[Any, ...], text: str) -> Any:
    if type(None) in kinds and text.lower() in _NONE:
        return None
    for kind in kinds:
        try:
            return _parsed(kind, text)
        except _Unfit:
            continue
    raise _Unfit


def _parsed_tuple(kinds: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    """`a,b` or `(a, b)`; nothing at all is the empty tuple."""
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    parts = [part.strip() for part in inner.split(",")] if inner.strip() else []
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_parsed(kinds[0], _not_empty(part)) for part in parts)
    if len(parts) != len(kinds):
        raise _Unfit
    return tuple(_parsed(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _number(kind: type, text: str) -> int | float:
    """Digits with or without `_`; an int also as `1e6`, where that is whole."""
    try:
        value = float(text)
        if kind is float:
            if math.isnan(value):
                raise _Unfit
            return value
        return int(text) if set(text) <= set("+-_0123456789") else _whole(value)
    except ValueError:
        raise _Unfit from None


def _whole(value: float) -> int:
    if not value.is_integer():  # neither are NaN and infinity
        raise _Unfit
    return int(value)


def _one_of(choices: dict[str, Any], text: str) -> Any:
    if text not in choices:
        raise _Unfit
    return choices[text]


def _not_empty(text: str) -> str:
    if not text:
        raise _Unfit
    return text


def _described(kind: Any) -> str:
    """The type in words, for "Give ..."."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join("none" if one is type(None) else _described(one) for one in arguments)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"{_described(arguments[0])}, or several with commas between them"
    if origin is tuple:
        return f"{len(arguments)} values with a comma between them, each {_described(arguments[0])}"
    if dataclasses.is_dataclass(kind) and kind is not ModelConfig and kind is not DatasetChoice:
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        return f"one of its fields a value: {names}"
    known = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        DatasetChoice: "the name of a data set",
        ModelConfig: f"the name of a preset ({', '.join(PRESETS)}), or one of its fields a value",
    }
    return known.get(kind, f"a value of type {kind}")
