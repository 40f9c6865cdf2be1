"""What a field of a config may contain: its annotation gives type, choices and bounds, for text and values alike.

    examples: Count = 256                                        a whole number of at least 1
    kind: Literal["adafactor", "adamw"] = "adafactor"            one of these
    detune_cents: Annotated[float, Limits("...", lambda value: 0 <= value <= 5)] = 3.0
    num_workers: Annotated[CountOrZero, FREE] = 0                may change when a run is resumed

A dataclass derived from `Checked` rejects invalid values as soon as it is made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from mt3core.errors import MT3Error, UsageError, quoted

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_NONE = ("none", "null")
# Marks a field whose value may change when a run is resumed: where, how fast and how long the run is computed, what is
# kept and reported, and the learning rate. A change to any other field would make it another run.
FREE = "a run may be resumed with another value"


@dataclass(frozen=True)
class Limits:
    """What a field's value must be besides its type: as a test, and in words that follow "Use".

    A lambda inside an annotation cannot see the names of its module; one that needs them is defined before the class.
    """

    words: str
    fit: Callable[[Any], bool]


def at_least(lowest: int) -> Limits:
    return Limits(f"at least {lowest}", lambda value: value >= lowest)  # NaN is not


def span(words: str, lowest: float = -math.inf, highest: float = math.inf) -> Limits:
    """For a pair: the ends in order, within these bounds."""
    return Limits(words, lambda ends: lowest <= ends[0] <= ends[1] <= highest)


Count = Annotated[int, at_least(1)]
CountOrZero = Annotated[int, at_least(0)]
NotNegative = Annotated[float, at_least(0)]
Positive = Annotated[float, Limits("a positive number", lambda value: 0 < value < math.inf)]
Share = Annotated[float, Limits("at least 0 and less than 1", lambda value: 0 <= value < 1)]
Probability = Annotated[float, Limits("a probability from 0 to 1", lambda value: 0 <= value <= 1)]
Span = Annotated[tuple[float, float], span("the lower and the upper end")]


class Checked:
    """Base of the config dataclasses: checks every field against its annotation when an object is made.

    Class arguments: `section` is its path in the whole config, which errors show; `error` is the class of the errors.
    """

    _section: ClassVar[str] = ""
    _error: ClassVar[type[MT3Error]] = UsageError

    def __init_subclass__(cls, section: str = "", error: type[MT3Error] = UsageError) -> None:
        cls._section, cls._error = f"{section}." if section else "", error

    def __post_init__(self) -> None:
        config: Any = type(self)
        for name, kind in _kinds(config).items():
            value = getattr(self, name)
            if wanted := _misfit(kind, value):
                shown = "empty" if value in ((), "") else quoted(value)
                raise self._error(f"{self._section}{name} is {shown}.", f"Use {wanted}.")
        self._check_together()

    def _check_together(self) -> None:
        """For subclasses: raises if values are valid by themselves but not together."""


def check_name(name: str, what: str) -> str:
    """A name that can be part of a file name. Raises `UsageError` if it cannot."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UsageError(f"{name!r} is not a valid name for {what}.", "Use letters, digits, '-', '_' and '.'.")
    return name


def is_free(config: type, path: str) -> bool:
    """Whether a field of a config class, or a section that contains it, is marked `FREE`."""
    name, _, rest = path.partition(".")
    kind = _kinds(config).get(name)
    if get_origin(kind) is Annotated and FREE in get_args(kind):
        return True
    return bool(rest) and dataclasses.is_dataclass(kind) and is_free(kind, rest)  # type: ignore[arg-type]


def decisive(config: Any) -> dict[str, Any]:
    """The fields of a config that are not `FREE`, as JSON-ready values."""
    values = dataclasses.asdict(config)
    return {name: value for name, value in values.items() if not is_free(type(config), name)}


@functools.cache
def _kinds(config: type) -> dict[str, Any]:
    """The annotation of every field."""
    hints = get_type_hints(config, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}


def _misfit(kind: Any, value: Any) -> str:
    """Describes the values that a field of this type accepts if `value` is not one of them; empty if it is."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = [one for one in arguments[1:] if isinstance(one, Limits)]
        return _misfit(arguments[0], value) or next((one.words for one in limits if not one.fit(value)), "")
    if origin in (Union, types.UnionType):
        wanted = [_misfit(one, value) for one in arguments]
        return " or ".join(wanted) if all(wanted) else ""
    if origin is Literal:
        fits = value in arguments
    elif origin is tuple:
        several = len(arguments) == 2 and arguments[1] is Ellipsis
        fits = isinstance(value, tuple) and (several or len(value) == len(arguments))
        fits = fits and not any(map(_misfit, arguments[:1] * len(value) if several else arguments, value))
    elif kind in (int, float):
        fits = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        fits = fits and -math.inf < value < math.inf  # nor NaN
    else:
        fits = isinstance(value, kind)
    return "" if fits else _described(kind)


def parse_value(owner: type, field: str, path: str, text: str) -> Any:
    """The value of `text` for a field of the dataclass `owner`. `path` names the field in errors.

    Supported are int, float, bool, str, Literal, unions with None, tuples of these (separated by commas), and
    dataclasses with `text_means` and `from_text`, which returns None for unknown text. Raises `UsageError`
    naming the expected type.
    """
    kind = _kinds(owner)[field]
    try:
        return _parsed(kind, text)
    except (KeyError, ValueError):
        raise UsageError(f"{path} cannot be set to {text!r}.", f"Use {_described(kind)}.") from None


def _parsed(kind: Any, text: str) -> Any:
    """Raises `KeyError` or `ValueError` if the text is not a value of the type."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _parsed(arguments[0], text)
    if origin in (Union, types.UnionType):
        return _parsed_union(arguments, text)
    if origin is Literal:
        return {str(choice): choice for choice in arguments}[text]
    if origin is tuple:
        return _parsed_tuple(arguments, text)
    if kind is bool:
        return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
    if kind in (int, float):
        return _number(kind, text)
    if kind is str:
        return text
    if hasattr(kind, "from_text") and (found := kind.from_text(text)) is not None:
        return found
    raise ValueError


def _parsed_union(kinds: tuple[Any, ...], text: str) -> Any:
    if type(None) in kinds and text.lower() in _NONE:
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, ValueError):
            return _parsed(kind, text)
    raise ValueError


def _parsed_tuple(kinds: tuple[Any, ...], text: str) -> tuple[Any, ...]:
    """`a,b` or `(a, b)`; empty text is the empty tuple."""
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    parts = [part.strip() for part in inner.split(",")] if inner.strip() else []
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        if not all(parts):
            raise ValueError
        return tuple(_parsed(kinds[0], part) for part in parts)
    if len(parts) != len(kinds):
        raise ValueError
    return tuple(_parsed(kind, part) for kind, part in zip(kinds, parts, strict=True))


def _number(kind: type, text: str) -> int | float:
    """Digits with or without `_`; an int may be written `1e6` if it is whole."""
    if kind is int and set(text) <= set("+-_0123456789"):
        return int(text)
    value = float(text)
    if math.isnan(value) or (kind is int and not value.is_integer()):
        raise ValueError
    return kind(value)


def _described(kind: Any) -> str:
    """The type in words, for "Use ..."."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _described(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(map(_described, arguments))
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return f"{_described(arguments[0])}, or several separated by commas"
    if origin is tuple:
        return f"{len(arguments)} values separated by commas, each {_described(arguments[0])}"
    if hasattr(kind, "from_text"):
        return kind.text_means()
    if dataclasses.is_dataclass(kind):
        names = ", ".join(field.name for field in dataclasses.fields(kind))
        return f"a value for one of its fields: {names}"
    known = {bool: "true or false", int: "a whole number", float: "a number", str: "text", types.NoneType: "none"}
    return known.get(kind, f"a value of type {kind}")
