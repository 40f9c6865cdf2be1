"""Sheet music as MusicXML 3.1, which notation programs open.

Written directly: the values of `sheet.py` are what the format has, and neither music21 nor partitura is needed
(`docs/music.md` compares them).
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import PurePath
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from mt3core.notes.instruments import instrument_name
from mt3core.notes.tempo_map import TempoMap
from mt3core.transcription import Transcription
from mt3music.keys import Key, find_key
from mt3music.sheet import Bar, SheetPart, Value, Voice, sheet_parts
from mt3music.voices import QUARTER, Frame

_HEADER = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 '
    'Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
)
_TYPES = {192: "breve", 96: "whole", 48: "half", 24: "quarter", 12: "eighth", 6: "16th", 3: "32nd"}
_DOTTED = {144: "whole", 72: "half", 36: "quarter", 18: "eighth", 9: "16th"}
_TRIPLET_TYPES = {16: "quarter", 8: "eighth", 4: "16th"}
_ALTERATIONS = {-2: "flat-flat", -1: "flat", 0: "natural", 1: "sharp", 2: "double-sharp"}
# Sign, line and octave of a clef. Guitars and basses are written an octave higher than they sound.
_TREBLE, _BASS_CLEF, _PERCUSSION = ("G", 2, 0), ("F", 4, 0), ("percussion", 2, 0)
_OCTAVE_DOWN = {range(24, 32): ("G", 2, -1), range(32, 40): ("F", 4, -1)}  # General MIDI programs, from 0
_LOWEST_TREBLE_MEAN = 58
# Place on the staff and note head of General MIDI's drums, after the usual drum key (Weinberg 1998).
_DRUM_PLACES = {
    **dict.fromkeys((35, 36), ("F", 4, "normal")),
    **dict.fromkeys((38, 40), ("C", 5, "normal")),
    **dict.fromkeys((37, 39), ("C", 5, "x")),
    **dict.fromkeys((41, 43), ("A", 4, "normal")),
    **dict.fromkeys((45, 47), ("D", 5, "normal")),
    **dict.fromkeys((48, 50), ("E", 5, "normal")),
    42: ("G", 5, "x"),
    46: ("G", 5, "circle-x"),
    44: ("D", 4, "x"),
    **dict.fromkeys((49, 52, 55, 57), ("A", 5, "x")),
    **dict.fromkeys((51, 53, 59), ("F", 5, "x")),
}
_OTHER_DRUM = ("B", 4, "triangle")
# A bar gets a tempo mark if it, and so many bars from it on, differ this much from the last one: less is playing.
_NEW_TEMPO, _TEMPO_BARS = 0.08, 4
_STAFF_MM, _SMALL_STAFF_MM, _MOST_LARGE_STAVES = 7.0, 5.0, 6  # as printed: for a player, for a score of a band
_LONGEST_ABBREVIATION = 6
_CHANNELS = 16
_DRUM_CHANNEL = 10  # as MusicXML counts


def musicxml_bytes(result: Transcription) -> bytes:
    """The notes as a score with the bars of `result.tempo`; without it, of 120 quarters a minute."""
    notes = result.notes
    first = notes[0].onset if notes else 0.0
    tempo = result.tempo or TempoMap.steady(120.0, max(result.duration_seconds, first + 1.0), first)
    parts, frame = sheet_parts(notes, tempo, is_fine=result.grid == "1/32")
    score = Element("score-partwise", version="3.1")
    SubElement(SubElement(score, "work"), "work-title").text = _title(result.audio)
    encoding = SubElement(SubElement(score, "identification"), "encoding")
    SubElement(encoding, "software").text = "mt3kit"
    num_staves = sum(len(part.staff_pitches) for part in parts)
    scaling = SubElement(SubElement(score, "defaults"), "scaling")
    SubElement(scaling, "millimeters").text = f"{_STAFF_MM if num_staves <= _MOST_LARGE_STAVES else _SMALL_STAFF_MM:g}"
    SubElement(scaling, "tenths").text = "40"  # a staff, whatever its size
    names = SubElement(score, "part-list")
    key = find_key(notes)
    for number, part in enumerate(parts, 1):
        _name_part(names, number, part)
        element = SubElement(score, "part", id=f"P{number}")
        marks = _tempo_marks(part.bars, frame, tempo) if number == 1 else {}
        for place, bar in enumerate(part.bars):
            measure = SubElement(element, "measure", number=str(place + (not part.bars[0].is_pick_up)))
            if bar.is_pick_up:
                measure.set("implicit", "yes")
            if place == 0:
                _attributes(measure, part, key, tempo)
            if place in marks:
                _tempo_mark(measure, marks[place], frame, tempo)
            _bar(measure, part, bar, key, number)
    if not parts:
        _empty_part(names, score, frame, tempo, key)
    ElementTree.indent(score, " ")
    return f"{_HEADER}{ElementTree.tostring(score, encoding='unicode')}\n".encode()


def _title(audio: str) -> str:
    name = " ".join(PurePath(audio).stem.replace("_", " ").split())
    # XML has no place for control characters, and names of files may have any.
    return "".join(letter for letter in name if letter.isprintable()) or "Transcription"


def _name_part(names: Element, number: int, part: SheetPart) -> None:
    named = SubElement(names, "score-part", id=f"P{number}")
    name = instrument_name(part.program, part.is_drum)
    SubElement(named, "part-name").text = name
    SubElement(named, "part-abbreviation").text = _abbreviation(name)
    drums = sorted({pitch for pitches in part.staff_pitches for pitch in pitches}) if part.is_drum else [0]
    for drum in drums:
        instrument = SubElement(named, "score-instrument", id=f"P{number}-I{drum}")
        SubElement(instrument, "instrument-name").text = name
    channel = _DRUM_CHANNEL if part.is_drum else _pitched_channel(number)
    for drum in drums:
        midi = SubElement(named, "midi-instrument", id=f"P{number}-I{drum}")
        SubElement(midi, "midi-channel").text = str(channel)
        SubElement(midi, "midi-program").text = str(part.program + 1)
        if part.is_drum:
            SubElement(midi, "midi-unpitched").text = str(drum + 1)


def _abbreviation(name: str) -> str:
    """What stands before the staff from the second line on: its last word, or the start of it."""
    words = [word for word in name.partition("(")[0].split() if word.isalpha() and word not in ("Ensemble", "Section")]
    word = words[-1] if words else name
    return word if len(word) <= _LONGEST_ABBREVIATION else f"{word[: _LONGEST_ABBREVIATION - 1]}."


def _pitched_channel(number: int) -> int:
    channel = (number - 1) % (_CHANNELS - 1) + 1
    return channel + (channel >= _DRUM_CHANNEL)


def _attributes(measure: Element, part: SheetPart, key: Key, tempo: TempoMap) -> None:
    attributes = SubElement(measure, "attributes")
    SubElement(attributes, "divisions").text = str(QUARTER)
    if not part.is_drum:
        signature = SubElement(attributes, "key")
        SubElement(signature, "fifths").text = str(key.fifths)
        SubElement(signature, "mode").text = "minor" if key.is_minor else "major"
    time = SubElement(attributes, "time")
    SubElement(time, "beats").text = str(tempo.time_signature.numerator)
    SubElement(time, "beat-type").text = str(tempo.time_signature.denominator)
    count = len(part.staff_pitches)
    if count > 1:
        SubElement(attributes, "staves").text = str(count)
    for number, (sign, line, octave) in enumerate(_clefs(part), 1):
        clef = SubElement(attributes, "clef", {"number": str(number)} if count > 1 else {})
        SubElement(clef, "sign").text = sign
        SubElement(clef, "line").text = str(line)
        if octave:
            SubElement(clef, "clef-octave-change").text = str(octave)


def _clefs(part: SheetPart) -> Sequence[tuple[str, int, int]]:
    if part.is_drum:
        return [_PERCUSSION]
    if len(part.staff_pitches) > 1:
        return [_TREBLE, _BASS_CLEF]
    for programs, clef in _OCTAVE_DOWN.items():
        if part.program in programs:
            return [clef]
    return [_TREBLE if np.mean(part.staff_pitches[0]) >= _LOWEST_TREBLE_MEAN else _BASS_CLEF]


def _tempo_marks(bars: Sequence[Bar], frame: Frame, tempo: TempoMap) -> dict[int, float]:
    """Beats a minute by bar: of the first bars, and from where on they have changed for longer than a bar."""
    ends = np.array([bars[0].start, *(bar.start + bar.length for bar in bars)]) / frame.beat
    beats, seconds = np.diff(ends), np.diff(tempo.seconds_at(ends))
    marks: dict[int, float] = {}
    shown = 0.0
    for number in range(len(bars)):
        coming = slice(number, number + _TEMPO_BARS)
        now = 60.0 * beats[number] / max(seconds[number], 1e-6)
        mean = (
            tempo.beats_per_minute if tempo.is_steady else 60.0 * beats[coming].sum() / max(seconds[coming].sum(), 1e-6)
        )
        if not shown or min(abs(now / shown - 1), abs(mean / shown - 1)) >= _NEW_TEMPO:
            marks[number] = shown = float(mean)
    return marks


def _tempo_mark(measure: Element, beats_per_minute: float, frame: Frame, tempo: TempoMap) -> None:
    direction = SubElement(measure, "direction", placement="above")
    mark = SubElement(SubElement(direction, "direction-type"), "metronome")
    SubElement(mark, "beat-unit").text = _TYPES.get(frame.beat) or _DOTTED[frame.beat]
    if frame.beat in _DOTTED:
        SubElement(mark, "beat-unit-dot")
    SubElement(mark, "per-minute").text = str(round(beats_per_minute))
    quarters = tempo.time_signature.beat_quarters
    SubElement(direction, "sound", tempo=f"{beats_per_minute * float(quarters):.3f}")


def _bar(measure: Element, part: SheetPart, bar: Bar, key: Key, number: int) -> None:
    is_first = True
    for staff, voices in enumerate(bar.staves):
        for place, one in enumerate(voices):
            if not is_first:
                SubElement(SubElement(measure, "backup"), "duration").text = str(bar.length)
            is_first = False
            voice = str(staff * 4 + place + 1)
            stem = "up" if part.is_drum or one.has_stems_up else "down" if one.has_stems_up is False else None
            beams = _beams(one.values, bar)
            for value, beam in zip(one.values, beams, strict=True):
                for which, pitch in enumerate(value.pitches or (None,)):
                    note = SubElement(measure, "note", {"print-object": "no"} if value.is_hidden else {})
                    if which:
                        SubElement(note, "chord")
                    _what(note, pitch, value, part, key)
                    SubElement(note, "duration").text = str(value.length)
                    if pitch is not None:
                        _ties(note, pitch, value)
                        if part.is_drum:
                            SubElement(note, "instrument", id=f"P{number}-I{pitch}")
                    SubElement(note, "voice").text = voice
                    if not value.is_whole_bar:
                        _type(note, value)
                    if pitch is not None:
                        if stem:
                            SubElement(note, "stem").text = stem
                        if part.is_drum and (head := _DRUM_PLACES.get(pitch, _OTHER_DRUM)[2]) != "normal":
                            SubElement(note, "notehead").text = head
                    if len(bar.staves) > 1:
                        SubElement(note, "staff").text = str(staff + 1)
                    if pitch is not None and beam and not which:
                        SubElement(note, "beam", number="1").text = beam
                    _notations(note, pitch, value, is_first=not which)


def _beams(values: Sequence[Value], bar: Bar) -> list[str]:
    """For each value its place in a beam of the quarter (in compound bars, of the beat) it is in; "" without one."""
    per_group = QUARTER * 3 // 2 if bar.length % (QUARTER * 3 // 2) == 0 and bar.length % QUARTER else QUARTER
    groups: list[list[int]] = []
    place, last = 0, -1
    for number, value in enumerate(values):
        base = value.length * 3 // 2 if value.in_triplet else value.length
        if value.pitches and base < QUARTER:
            if place // per_group != last:
                groups.append([])
            groups[-1].append(number)
            last = place // per_group
        else:
            last = -1
        place += value.length
    found = [""] * len(values)
    for group in groups:
        if len(group) > 1:
            for number in group:
                found[number] = "continue"
            found[group[0]], found[group[-1]] = "begin", "end"
    return found


def _what(note: Element, pitch: int | None, value: Value, part: SheetPart, key: Key) -> None:
    if pitch is None:
        SubElement(note, "rest", {"measure": "yes"} if value.is_whole_bar else {})
        return
    if part.is_drum:
        step, octave, _ = _DRUM_PLACES.get(pitch, _OTHER_DRUM)
        unpitched = SubElement(note, "unpitched")
        SubElement(unpitched, "display-step").text = step
        SubElement(unpitched, "display-octave").text = str(octave)
        return
    step, alteration, octave = key.spelled(pitch)
    element = SubElement(note, "pitch")
    SubElement(element, "step").text = step
    if alteration:
        SubElement(element, "alter").text = str(alteration)
    SubElement(element, "octave").text = str(octave)


def _ties(note: Element, pitch: int, value: Value) -> None:
    if pitch in value.tied_from:
        SubElement(note, "tie", type="stop")
    if pitch in value.tied_to:
        SubElement(note, "tie", type="start")


def _type(note: Element, value: Value) -> None:
    types = _TRIPLET_TYPES if value.in_triplet else _TYPES
    SubElement(note, "type").text = types.get(value.length) or _DOTTED[value.length]
    if value.length not in types:
        SubElement(note, "dot")
    if value.in_triplet:
        modification = SubElement(note, "time-modification")
        SubElement(modification, "actual-notes").text = "3"
        SubElement(modification, "normal-notes").text = "2"


def _notations(note: Element, pitch: int | None, value: Value, is_first: bool) -> None:
    found = []
    if pitch is not None:
        found += [("tied", "stop")] * (pitch in value.tied_from) + [("tied", "start")] * (pitch in value.tied_to)
    if is_first:
        found += [("tuplet", "start")] * value.opens_triplet + [("tuplet", "stop")] * value.closes_triplet
    if found:
        notations = SubElement(note, "notations")
        for name, kind in found:
            SubElement(notations, name, type=kind)


def _empty_part(names: Element, score: Element, frame: Frame, tempo: TempoMap, key: Key) -> None:
    """A score needs a part: one bar of rest."""
    length = int(tempo.time_signature.beats_per_bar * tempo.time_signature.beat_quarters * QUARTER)
    part = SheetPart(0, False, (Bar(0, length, ((Voice((Value(length, is_whole_bar=True),)),),)),), ((60,),))
    _name_part(names, 1, part)
    measure = SubElement(SubElement(score, "part", id="P1"), "measure", number="1")
    _attributes(measure, part, key, tempo)
    _tempo_mark(measure, tempo.beats_per_minute, frame, tempo)
    _bar(measure, part, part.bars[0], key, 1)
