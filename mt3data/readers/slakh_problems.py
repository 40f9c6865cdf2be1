"""Stems of SLAKH2100 that are known to be wrong.

Facts from the list `problem_stems.json` of the PyPI package slakh-dataset 0.1.25 (MIT licence). The track numbers
are those of the original release and of the redux release, which are the same.
"""

from __future__ import annotations

from mt3data.readers.defects import defect
from mt3data.readers.tracks import MIX, Defect

PROBLEM_STEMS: dict[str, dict[str, str]] = {
    "white_noise": {
        **{"Track00357": "S03", "Track00377": "S07", "Track00385": "S00", "Track00398": "S00", "Track00400": "S00"},
        **{"Track00629": "S01", "Track00633": "S01", "Track00749": "S01", "Track01629": "S00"},
    },
    "wrong_midi": {"Track00262": "S01"},
    "wrong_pitch": {"Track00496": "S01", "Track01918": "S10", "Track01931": "S01", "Track01937": "S03"},
    "wrong_octave": {"Track01929": "S04"},
    "short_notes": {"Track00404": "S03", "Track00737": "S01", "Track00893": "S01"},
    "missing_audio": {"Track01876": "S01", "Track01908": "S05", "Track01993": "S01", "Track02024": "S13"},
}
_SENTENCES = {
    "white_noise": "The audio of {place} is known to be noise",
    "wrong_midi": "The MIDI of {place} is known not to match the audio",
    "wrong_pitch": "The pitches of {place} are known to be wrong",
    "wrong_octave": "The notes of {place} are known to be in the wrong octave",
    "short_notes": "The notes of {place} are known to be too short",
    "missing_audio": "The audio of {place} is known to be missing",
}
# Their onsets and pitches are right.
_USED = ("short_notes",)


def is_known(track: str, stem: str) -> str:
    """The known problem of a stem of SLAKH2100, or an empty text."""
    return next((kind for kind, stems in PROBLEM_STEMS.items() if stems.get(track) == stem), "")


def known_problem(track: str, stem: str, split: str) -> tuple[Defect, ...]:
    """The defects of a stem that is known to be wrong: its own and those of the mix that contains it."""
    kind = is_known(track, stem)
    if not kind:
        return ()
    problem = _SENTENCES[kind].format(place=f"{track} {stem}")
    if kind in _USED:
        return (defect(track, stem, f"known_{kind}", f"{problem}; it is used unchanged.", skips=False),)
    found = defect(track, stem, f"known_{kind}", f"{problem}.")
    if kind == "missing_audio":
        return (found,)
    if split in ("test", "validation"):  # stay whole, so that scores can be compared with published ones
        kept = f"{problem}; the mix still stays in the {split} set."
        return found, defect(track, MIX, "mix_with_wrong_stem", kept, skips=False)
    return found, mix_defect(track, problem)


def mix_defect(track: str, problem: str) -> Defect:
    """What a stem without correct labels means for the mix."""
    return defect(track, MIX, "mix_with_wrong_stem", f"{problem}, so the mix is left out; the other stems are used.")
