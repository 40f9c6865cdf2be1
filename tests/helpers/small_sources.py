"""Tiny archives of music, packed as the published ones are, and the sources that describe them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
from pathlib import Path

from midi_files import write_song

SCORE = """<?xml version="1.0"?>
<score-partwise version="4.0"><part-list>
 <score-part id="P1"><part-name>Voice</part-name>
 <midi-instrument id="I1"><midi-program>53</midi-program></midi-instrument>
 </score-part><score-part id="P2"><part-name>Piano</part-name></score-part></part-list>
 <part id="P1">{voice}</part><part id="P2">{piano}</part>
</score-partwise>
"""


def note(step, octave, duration, *, chord=False, tie="", extra=""):
    """One note of MusicXML; `tie` is start, stop or both with a blank between."""
    ties = "".join(f'<tie type="{one}"/>' for one in tie.split())
    pitch = f"<pitch><step>{step}</step><octave>{octave}</octave></pitch>"
    return f"<note>{'<chord/>' if chord else ''}{extra}{pitch}<duration>{duration}</duration>{ties}</note>"


def song_score(bars: int = 40) -> str:
    """A voice in quarters over chords of the piano, at 120 quarters a minute."""
    begin = "<attributes><divisions>2</divisions></attributes><direction><sound tempo='120'/></direction>"
    sung = "".join(note("CDEFGAB"[place % 7], 5, 2) for place in range(4))
    chords = note("C", 3, 4) + note("E", 3, 4, chord=True) + note("G", 2, 4) + note("B", 3, 4, chord=True)
    voice = "".join(f"<measure>{begin if bar == 0 else ''}{sung}</measure>" for bar in range(bars))
    piano = "".join(f"<measure>{begin if bar == 0 else ''}{chords}</measure>" for bar in range(bars))
    return SCORE.format(voice=voice, piano=piano)


def write_sources(folder: Path, known) -> tuple:
    """Archives for all of `known` (sources of music) in a folder, and the sources with the archives' digests."""
    folder.mkdir(parents=True, exist_ok=True)
    described = []
    for source in known:
        files = _FILES[source.name]()
        with tarfile.open(folder / f"{source.names[0].rstrip('*')}.tar.gz", "w:gz") as archive:
            for name, data in {**files, "top/README.md": b"not music"}.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        digests = sorted({hashlib.sha256(data).hexdigest() for data in files.values()})
        digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
        described.append(dataclasses.replace(source, content_sha256=digest))
    return tuple(described)


def _midi(parts, names=()) -> bytes:
    """Bytes of a MIDI file of parts as `write_song` takes them."""
    import tempfile

    import mido

    with tempfile.TemporaryDirectory() as folder:
        path = write_song(Path(folder) / "song.mid", parts)
        if names:
            midi = mido.MidiFile(path)
            for track, name in zip(midi.tracks[1:], names, strict=True):
                track[0] = mido.MetaMessage("track_name", name=name)
            midi.save(path)
        return path.read_bytes()


def _piano(shift: int, count: int = 240) -> list:
    return [(0.25 * place, 0.25 * place + 0.2, 48 + shift + (place * 5) % 24, 80) for place in range(count)]


def _giantmidi():
    names = ("Bach_Prelude_aaaaaaaaaaa_a", "Liszt_Etude_bbbbbbbbbbb_mov_1", "Liszt_Etude_bbbbbbbbbbb_mov_2",
             "Chopin_Preludes_Op28_ccccccccccc_no_6")  # fmt: skip
    return {f"top/giantmidi-piano/{name}.mid": _midi([(0, _piano(place))]) for place, name in enumerate(names)}


def _pop909():
    def song(shift):
        melody = [(0.5 * place, 0.5 * place + 0.4, 72 + shift + place % 5, 90) for place in range(120)]
        bridge = [(1.0 * place, 1.0 * place + 0.9, 64 + shift, 70) for place in range(60)]
        left = [(1.0 * place, 1.0 * place + 0.9, 40 + shift + 5 * (place % 2), 70) for place in range(60)]
        return _midi([(0, melody), (0, bridge), (0, sorted(_piano(shift) + left))], ("MELODY", "BRIDGE", "PIANO"))

    return {f"top/{number:03d}/{number:03d}.mid": song(number) for number in range(1, 5)}


def _freedoom():
    def band(shift):
        drums = [(0.5 * place, 0.5 * place + 0.1, (36, 42, 38, 42)[place % 4], 100) for place in range(120)]
        return _midi([(33, _piano(shift - 12)), (80, _piano(shift + 12)), (None, drums)])

    return {f"top/musics/d_map{number:02d}.mid": band(number) for number in range(4)}


def _groove():
    head = "drummer,session,id,style,bpm,beat_type,time_signature,midi_filename,audio_filename,duration,split\n"
    files, rows = {}, []
    for number in range(4):
        hits = [(0.5 * place, 0.5 * place + 0.05, (36, 22, 38, 26)[place % 4], 90) for place in range(16)]
        name = f"drummer{number}/session1/1_rock_120_beat_4-4.mid"
        files[f"top/groove/{name}"] = _midi([(None, [(on, off, pitch, 60 + number) for on, off, pitch, _ in hits])])
        rows.append(f"drummer{number},drummer{number}/session1,x,rock,120,beat,4-4,{name},,8.0,train\n")
    return {**files, "top/groove/info.csv": (head + "".join(rows)).encode()}


def _scores(name: str):
    return {
        f"top/scores/Composer/_/{name} {number}/{name}{number}.mxl": song_score(30 + number).encode()
        for number in range(3)
    }


_FILES = {
    "giantmidi": _giantmidi,
    "pop909": _pop909,
    "freedoom": _freedoom,
    "groove": _groove,
    "lieder": lambda: _scores("lc"),
    "quartets": lambda: _scores("sq"),
}
