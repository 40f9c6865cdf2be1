"""How tokens are chosen from the network's logits: the options and the result, the same for both networks.

The original MT3 decodes by T5X's beam search with one beam and length penalty 0.6, which is not greedy: a
finished candidate competes with the running sequence (method `t5x`). Scores are T5X's, the sum of log
probabilities divided by `((5 + n) / 6) ** length_penalty`, n tokens with the end token.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from mt3core.errors import UsageError

Method = Literal["greedy", "t5x", "beam"]
METHODS = get_args(Method)
OVERLAPS = (1, 2, 4)
QUALITIES = ("auto", "fast", "best")  # see `in_quality`
START_TOKEN = 0
END_TOKEN = 1


@dataclass(frozen=True)
class Decoding:
    """`greedy`: the best token at each step. `t5x`: the original's rule. `beam`: T5X's beam search with `num_beams`.

    With the `grammar` only tokens that make sense are written (`mt3decode/grammar.py`), and only notes of `programs`
    (None: all) and of drums, unless `drums` is false; what a network takes for another program of the class of one of
    these is a note of it. Probabilities are those among the tokens that may be written.

    With an `overlap` of 2 or 4, so many windows hear every moment, and it is taken from the one whose middle it is in
    (`mt3decode/windows.py`), at so many times the cost. With `agreement`, a model that knows how far to believe its
    windows (`ModelConfig.agreement`) weighs what four of them hear (`mt3decode/agreement.py`), whatever the overlap;
    any other keeps to the overlap.

    With `continuous` each segment begins with the notes that sound at the end of the one before
    (`mt3decode/stretches.py`), at no cost to its score.
    """

    method: Method = "t5x"
    num_beams: int = 1
    length_penalty: float = 0.6
    max_tokens: int = 1024
    grammar: bool = False
    programs: tuple[int, ...] | None = None
    drums: bool = True
    overlap: int = 1
    agreement: bool = False
    continuous: bool = False

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"Unknown decoding method {self.method!r}.", f"Choose {', '.join(METHODS)}.")
        if self.method == "beam" and self.num_beams < 1:
            raise UsageError(f"Beam search needs at least one beam, not {self.num_beams}.")
        if self.method != "beam" and self.num_beams != 1:
            raise UsageError(
                f"Decoding method {self.method!r} uses one beam, not {self.num_beams}.", "Use --decoding beam for more."
            )
        if self.overlap not in OVERLAPS:
            raise UsageError(f"Windows cannot overlap {self.overlap} times.", "Choose 1 (not at all), 2 or 4.")
        if (self.overlap > 1 or self.agreement) and self.continuous:
            raise UsageError("Windows that overlap do not follow one another.", "Leave out either.")
        if self.max_tokens < 1:
            raise UsageError(f"At least one token must be allowed, not {self.max_tokens}.")
        if (self.programs is not None or not self.drums) and not self.grammar:
            raise UsageError("Instruments can be chosen only with the grammar.", "Leave out --no-grammar.")
        if self.programs is not None and not self.programs and not self.drums:
            raise UsageError("No instrument is left to be written.", "Choose at least one, or the drums.")
        if outside := [number for number in self.programs or () if not 0 <= number <= 127]:
            raise UsageError(f"There is no program {outside[0]}.", "Programs are numbered from 0 to 127.")

    def to_json(self) -> dict[str, Any]:
        """The options that are not the defaults, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if value != getattr(Decoding, name)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Decoding:
        """The inverse of `to_json`. Raises `UsageError` or `TypeError` for values that it does not write."""
        given = {**values}
        programs = given.pop("programs", None)
        for value, wanted in [
            *((value, type(getattr(cls, name, None))) for name, value in given.items()),
            *((one, int) for one in programs or ()),
        ]:
            if type(value) is not wanted:
                raise TypeError(f"the option {value!r}")
        return cls(**given, programs=None if programs is None else tuple(programs))


def in_quality(decoding: Decoding, quality: str) -> Decoding:
    """The same in one of `QUALITIES`, as `mt3 transcribe --quality` has it. Raises `UsageError`.

    `fast`: segments. `best`: overlapping windows, weighed if the model can. `auto`: windows only if it can. Those of
    continuous decoding follow one another in all.
    """
    if quality not in QUALITIES:
        raise UsageError(f"Unknown quality {quality!r}.", f"Choose {', '.join(QUALITIES[:-1])} or {QUALITIES[-1]}.")
    if decoding.continuous:
        quality = "fast"
    return replace(decoding, overlap=2 if quality == "best" else 1, agreement=quality != "fast")


@dataclass(frozen=True)
class Generated:
    """One segment's tokens, int32 (n,), with the end token if the network wrote one, and their score.

    `log_probabilities`, float32 (n,), are the tokens' own, among those that could be written; None if not known.
    """

    tokens: np.ndarray
    score: float
    log_probabilities: np.ndarray | None = None


def brevity_penalty(length_penalty: Any, length: Any) -> Any:
    """T5X's divisor of a sequence's log probability (after Wu et al. 2016, arXiv:1609.08144).

    Both may be numbers or arrays of any library.
    """
    return ((5.0 + length) / 6.0) ** length_penalty
