"""Scores in MusicXML (.mxl, .musicxml) as parts with times in seconds; written for the scores of OpenScore.

It reads pitches, ties, chords, grace notes, several voices and staves, transposing instruments, tempi, dynamics and
MIDI programs. It ignores repeats (a piece is played through once), ornaments and lyrics.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mt3core.errors import MidiError
from mt3core.notes.table import NOTE_DTYPE, NoteTable, trim_overlapping
from mt3render.score import Part

DEFAULT_QUARTERS_PER_MINUTE = 96.0
_SLOWEST, _FASTEST = 30.0, 260.0  # quarters per minute; values outside are mistakes
_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_DYNAMICS = {"pppp": 24, "ppp": 30, "pp": 40, "p": 52, "mp": 64, "mf": 76, "f": 90, "ff": 104, "fff": 116, "ffff": 124}
_ACCENTS = {"sf": 14, "sfz": 14, "fz": 14, "fp": 10, "rfz": 12}
_BEAT_QUARTERS = {"whole": 4.0, "half": 2.0, "quarter": 1.0, "eighth": 0.5, "16th": 0.25}
_GRACE_QUARTERS = 0.125


@dataclass
class _Voice:
    """State while one part is read. Times in quarters."""

    rows: list[tuple[float, float, int, int]] = field(default_factory=list)  # start, end, pitch, velocity
    held: dict[int, int] = field(default_factory=dict)  # pitch -> row that a tie continues
    velocity: int = 72


def read_musicxml(source: Path | bytes, name: str = "The score") -> tuple[Part, ...]:
    """The parts of a score that have notes. Raises `MidiError` for a file that is not readable MusicXML."""
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        root = ElementTree.fromstring(_score_text(data))
        programs = _programs(root)
        tempi: dict[float, float] = {}
        voices = [(part.get("id", ""), _read_part(part, tempi)) for part in root.findall("part")]
    except (ElementTree.ParseError, zipfile.BadZipFile, KeyError, ValueError, StopIteration) as error:
        raise MidiError(f"{name} is not MusicXML ({error}).", "Leave it out.") from error
    parts = []
    for identity, voice in voices:
        label, program = programs.get(identity, ("", 0))
        notes = _in_seconds(voice.rows, tempi, program)
        if len(notes):
            parts.append(Part(label or identity, program, False, notes, np.empty((0, 2))))
    if not parts:
        raise MidiError(f"{name} has no notes.", "Leave it out.")
    return tuple(parts)


def _score_text(data: bytes) -> bytes:
    if not data.startswith(b"PK"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        container = ElementTree.fromstring(archive.read("META-INF/container.xml"))
        return archive.read(next(one.get("full-path", "") for one in container.iter() if one.tag.endswith("rootfile")))


def _programs(root: ElementTree.Element) -> dict[str, tuple[str, int]]:
    found = {}
    for one in root.findall("part-list/score-part"):
        program = int(one.findtext("midi-instrument/midi-program", "1")) - 1
        found[one.get("id", "")] = (one.findtext("part-name", "").strip(), program if 0 <= program < 128 else 0)
    return found


def _read_part(part: ElementTree.Element, tempi: dict[float, float]) -> _Voice:
    voice = _Voice()
    divisions, transpose, begin = 1.0, 0, 0.0
    for measure in part.findall("measure"):
        now = last = furthest = begin
        for element in measure:
            if element.tag == "attributes":
                divisions = float(element.findtext("divisions", str(divisions)))
                chromatic = element.findtext("transpose/chromatic")
                if chromatic is not None:
                    octaves = int(element.findtext("transpose/octave-change", "0"))
                    transpose = round(float(chromatic)) + 12 * octaves
            elif element.tag in ("backup", "forward"):
                step = float(element.findtext("duration", "0")) / divisions
                now += step if element.tag == "forward" else -step
            elif element.tag in ("direction", "sound"):
                _read_direction(element, now, tempi, voice)
            elif element.tag == "note":
                length = float(element.findtext("duration", "0")) / divisions
                at = last if element.find("chord") is not None else now
                _read_note(element, at, length, transpose, voice)
                if element.find("chord") is None:
                    last, now = now, now + length
            furthest = max(furthest, now)
        begin = furthest
    return voice


def _read_direction(element: ElementTree.Element, now: float, tempi: dict[float, float], voice: _Voice) -> None:
    sound = element if element.tag == "sound" else element.find("sound")
    tempo = float(sound.get("tempo", "0")) if sound is not None else 0.0
    metronome = element.find("direction-type/metronome")
    if not tempo and metronome is not None:
        digits = "".join(sign for sign in metronome.findtext("per-minute", "") if sign.isdigit() or sign == ".")
        quarters = _BEAT_QUARTERS.get(metronome.findtext("beat-unit", ""), 0.0)
        quarters *= 1.5 if metronome.find("beat-unit-dot") is not None else 1.0
        tempo = float(digits.strip(".") or 0) * quarters
    if _SLOWEST <= tempo <= _FASTEST:
        tempi[now] = tempo
    for mark in element.iterfind("direction-type/dynamics/*"):
        voice.velocity = _DYNAMICS.get(mark.tag, voice.velocity)


def _read_note(element: ElementTree.Element, at: float, length: float, transpose: int, voice: _Voice) -> None:
    pitch_element = element.find("pitch")
    if pitch_element is None or element.find("cue") is not None:
        return
    step = _STEPS[pitch_element.findtext("step", "C")] + round(float(pitch_element.findtext("alter", "0")))
    pitch = step + 12 * (int(pitch_element.findtext("octave", "4")) + 1) + transpose
    velocity = voice.velocity
    for articulation in element.iterfind("notations/articulations/*"):
        velocity += {"accent": 12, "strong-accent": 18}.get(articulation.tag, 0)
        length *= {"staccato": 0.5, "staccatissimo": 0.35}.get(articulation.tag, 1.0)
    for mark in element.iterfind("notations/dynamics/*"):
        velocity += _ACCENTS.get(mark.tag, 0)
    if element.find("grace") is not None:
        at, length = max(at - _GRACE_QUARTERS, 0.0), _GRACE_QUARTERS
    ties = {tie.get("type") for tie in element.findall("tie")}
    row = voice.held.pop(pitch, None) if "stop" in ties else None
    if row is None:
        row = len(voice.rows)
        voice.rows.append((at, at + length, pitch, min(velocity, 127)))
    else:
        begin, _, _, first_velocity = voice.rows[row]
        voice.rows[row] = (begin, at + length, pitch, first_velocity)
    if "start" in ties:
        voice.held[pitch] = row


def _in_seconds(rows: list[tuple[float, float, int, int]], tempi: dict[float, float], program: int) -> NoteTable:
    changes = sorted({0.0: DEFAULT_QUARTERS_PER_MINUTE, **tempi}.items())
    if tempi and min(tempi) > 0.0:
        changes[0] = (0.0, tempi[min(tempi)])
    quarters = np.array([at for at, _ in changes])
    pace = 60.0 / np.array([tempo for _, tempo in changes])
    seconds = np.concatenate([[0.0], np.cumsum(np.diff(quarters) * pace[:-1])])

    def when(at: np.ndarray) -> np.ndarray:
        place = np.searchsorted(quarters, at, side="right") - 1
        return seconds[place] + (at - quarters[place]) * pace[place]

    table = np.zeros(len(rows), NOTE_DTYPE)
    if len(rows):
        begin, end, pitch, velocity = (np.array(column, np.float64) for column in zip(*rows, strict=True))
        table["onset"], table["offset"] = when(begin), when(end)
        table["pitch"], table["velocity"], table["program"] = pitch, velocity, program
    table = table[(table["pitch"] >= 0) & (table["pitch"] < 128)]
    return trim_overlapping(table[np.lexsort((table["pitch"], table["onset"]))])
