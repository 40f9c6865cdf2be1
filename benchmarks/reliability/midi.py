"""MIDI files as programs write them: several tracks, tempos, pedals, running status, SMPTE times, text."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import mido
import numpy as np

from reliability.kinds import Kind, Reading, Source, digest_of, sources_in
from reliability.mutations import mend_midi


class Midi(Kind):
    """`read_content`, the pedal, and the score that rendering reads; `mt3 evaluate` and `mt3 render`."""

    name = "midi"
    losses = ("truncation", "deletion")  # what a file says of itself is how long its tracks are
    command_every = 40

    @classmethod
    def build(cls, folder: Path) -> None:
        for name, data in _files().items():
            (folder / name).write_bytes(data)

    def open(self) -> None:
        from mt3core.notes.midi_reading import read_content
        from mt3render.score import read_score

        self._read_content, self._read_score = read_content, read_score
        self.sources = sources_in(
            self.folder,
            lambda path: Source(path.name, path.read_bytes(), states_end=True, header_bytes=22, mend=mend_midi),
        )

    def read(self, source: Source, data: bytes) -> Reading:
        from mt3core.errors import MidiError

        path = self.place(source.name, data)
        content = self._read_content(path, drop_empty=False)
        held = content.held()
        remarks = list(content.remarks)
        try:
            self._read_score(path, 60.0)
        except MidiError:  # no notes to play
            if len(content.notes):
                remarks.append("not rendered")
        return Reading(len(content.notes), digest_of(content.notes, held, content.controls), tuple(remarks))

    def command(self, source: Source, data: bytes) -> tuple[list[str], Sequence[Path]] | None:
        path = self.place(f"scores/{source.name}", data)
        if len(data) % 2:
            return ["evaluate", str(self.folder / source.name), str(path), "--protocol", "mt3"], ()
        out = self.scratch / "rendered"
        arguments = [str(path.parent), str(out), "--layout", "folder", "--engine", "pretty_midi", "--processes", "1"]
        return ["render", *arguments, "--rate", "8000", "--max-minutes", "0.05"], (path.parent, out)


def _files() -> dict[str, bytes]:
    rng = np.random.default_rng(3)
    band = mido.MidiFile(ticks_per_beat=480)
    conductor = mido.MidiTrack(
        [mido.MetaMessage("set_tempo", tempo=400_000), mido.MetaMessage("key_signature", key="D")]
    )
    conductor.append(mido.MetaMessage("time_signature", numerator=3, denominator=4))
    conductor.append(mido.MetaMessage("set_tempo", tempo=600_000, time=960))
    band.tracks.append(conductor)
    for channel, program in ((0, 0), (1, 33), (9, 0), (2, 48)):
        band.tracks.append(_track(rng, channel, program, 12))
    files = {"band.mid": _bytes_of(band)}
    single = mido.MidiFile(type=0, ticks_per_beat=96)
    single.tracks.append(_track(rng, 0, 5, 30))
    files["single.mid"] = _bytes_of(single)
    files["smpte.mid"] = files["single.mid"][:12] + b"\xe7\x28" + files["single.mid"][14:]
    events = (
        b"\0\xc0\x07"
        + b"\0\x90\x3c\x50"
        + b"".join(bytes([0x20, 60 + k % 12, 0, 0x10, 61 + k % 12, 0x50]) for k in range(40))
        + b"\x30\x3c\0\0\xff\x2f\0"
    )
    files["running_status.mid"] = _chunks(0, 96, [events])
    text = b"\0\xff\x01\x05hello\0\xff\x7f\x02\x01\x02\0\xf0\x05\x7e\x7f\x09\x01\xf7" + b"\0\x90\x40\x60\x60\x80\x40\0"
    files["text_and_exclusive.mid"] = _chunks(1, 480, [text + b"\0\xff\x2f\0", events])
    files["karaoke.kar"] = _chunks(1, 120, [b"\0\xff\x05\x02la\x10\xff\x05\x02li\0\xff\x2f\0", events])
    return files


def _track(rng: np.random.Generator, channel: int, program: int, count: int) -> mido.MidiTrack:
    track = mido.MidiTrack([mido.MetaMessage("track_name", name=f"part {channel}")])
    track.append(mido.Message("program_change", channel=channel, program=program))
    for number in range(count):
        pitch, velocity = int(rng.integers(30, 90)), int(rng.integers(1, 128))
        if number % 5 == 0:
            value = 127 if number % 10 == 0 else 0
            track.append(mido.Message("control_change", channel=channel, control=64, value=value, time=10))
        track.append(mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=20))
        track.append(mido.Message("pitchwheel", channel=channel, pitch=100, time=5))
        track.append(mido.Message("note_off", channel=channel, note=pitch, time=int(rng.integers(1, 300))))
    return track


def _bytes_of(file: mido.MidiFile) -> bytes:
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def _chunks(kind: int, division: int, tracks: Sequence[bytes]) -> bytes:
    head = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division)
    return head + b"".join(b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks)
