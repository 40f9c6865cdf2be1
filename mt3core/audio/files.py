"""Which reader a recording gets, decided by its content, and the checks that nothing of it is missing.

libsndfile (soundfile) reads whole WAV, FLAC, AIFF and the like, and Ogg of one piece, where the length is certain.
Everything else goes to FFmpeg (PyAV). A name never decides.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
import soundfile

from mt3core.audio.containers import Structure, structure_of
from mt3core.audio.flac import FlacChecker, flac_header, flac_parts
from mt3core.audio.frames import find_frames, scan_frames
from mt3core.audio.ogg import scan_ogg
from mt3core.audio.source import Ranges, Source, refuse_midi
from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, AudioStream, RateChange, check_rate, cut_off_error
from mt3core.audio.wav import is_wav, wav_parts
from mt3core.errors import AudioError, UsageError

if TYPE_CHECKING:
    from mt3core.audio.av_reader import Lost

Damaged = Literal["refuse", "keep"]

# libsndfile reports the largest integer if a header does not say how many samples follow.
_UNKNOWN_FRAMES = 1 << 62
_UNKNOWN_BYTES = 0x7FFF0000
# Formats of libsndfile that are left to FFmpeg: its own guess of an MP3's length, and raw samples without a header.
_NOT_WITH_SOUNDFILE = {"MP3", "MPEG", "OGG", "RAW", "SDS"}
# How the files of libsndfile begin that are read with it, apart from WAV, FLAC and Ogg: AIFF, AU, CAF, W64, VOC, AVR,
# NIST, PVF, PAF and IRCAM. It is not asked about others, for it takes them for MP3 and complains on the terminal.
_SOUNDFILE_STARTS = (
    *(b"FORM", b".snd", b"dns.", b"caff", b"riff", b"Crea", b"2BIT", b"NIST", b"PVF1", b" paf", b"fap "),
    *(b"\x64\xa3\x01\x00", b"\x64\xa3\x02\x00", b"\x64\xa3\x03\x00", b"\x00\x01\xa3\x64"),
)
# Tags in front of a file, or rests of a download, are searched so far for its real beginning.
_LEADING_BYTES = 1 << 16
_STARTS = re.compile(rb"RIFF....WAVE|RF64....WAVE|fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02", re.S)

Block = np.ndarray | RateChange
Opener = Callable[[], contextlib.AbstractContextManager[tuple[AudioInfo, Iterator[Block]]]]


def starts_like_soundfile(start: bytes) -> bool:
    """Whether a file that starts with these bytes is one for libsndfile (WAV, FLAC and Ogg aside)."""
    return start.startswith(_SOUNDFILE_STARTS)


class ReadWithFFmpeg(Exception):
    """libsndfile stopped early where FFmpeg finds nothing wrong: what was read so far is to be forgotten."""


@dataclass
class _Part:
    """One of the recordings in a file, or the only one."""

    open: Opener
    seconds: float | None = None


@dataclass
class _Plan:
    """How a file is read: its parts in order, what is odd, and why its end is missing, "" if it is not."""

    parts: list[_Part] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    missing_end: str = ""


@contextlib.contextmanager
def open_audio(
    source: Source, track: int | None = None, damaged: Damaged = "refuse", with_soundfile: bool = True
) -> Iterator[AudioStream]:
    """Opens a recording.

    Args:
        source: see `open_source`.
        track: which of several audio tracks, from 1.
        damaged: "refuse" raises `AudioError` when something is lost, "keep" puts silence in its place and says so.
        with_soundfile: False after `ReadWithFFmpeg` was raised.

    Raises `AudioError` if it is missing, a folder, empty, truncated, damaged or not audio, at once or while its blocks
    are read.
    """
    if damaged not in ("refuse", "keep"):
        raise UsageError(f"damaged={damaged!r} is not known.", 'Use "refuse" or "keep".')
    with source.open() as file:
        plan = _plan(_Reader(source, file, track, damaged, with_soundfile))
        if plan.missing_end:
            if damaged == "refuse":
                raise cut_off_error(source.name, plan.missing_end)
            plan.remarks.append(f"It is truncated: {plan.missing_end}; what is there was read.")
        with plan.parts[0].open() as (info, blocks):
            seconds = [part.seconds for part in plan.parts]
            if len(plan.parts) > 1 or info.duration_seconds is None:
                total = sum(length or 0.0 for length in seconds) if any(seconds) else None
                info = AudioInfo(total, info.sample_rate_hz, info.channels, info.format)
            yield AudioStream(source.name, info, _joined(plan.parts, info, blocks), plan.remarks)


def _joined(parts: list[_Part], first: AudioInfo, blocks: Iterator[Block]) -> Iterator[Block]:
    rate_hz = first.sample_rate_hz
    for number, part in enumerate(parts):
        with contextlib.ExitStack() as stack:
            if number:
                info, blocks = stack.enter_context(part.open())
                if info.sample_rate_hz != rate_hz:
                    yield RateChange(info.sample_rate_hz)
                    rate_hz = info.sample_rate_hz
            for block in blocks:
                if isinstance(block, RateChange):
                    rate_hz = block.sample_rate_hz
                yield block


def _plan(reader: _Reader) -> _Plan:
    file = reader.file
    start = file.at(0, 64)
    refuse_midi(reader.name, start)
    if is_wav(start) and reader.wav(file):
        return reader.plan
    if start[:4] == b"fLaC":
        return reader.flac(file)
    if start[:5] == b"OggS\0":
        return reader.ogg(file)
    structure = structure_of(file)
    if structure is not None:
        return reader.container(file, structure)
    frames = find_frames(file, start_bytes=0)
    if frames is not None:
        return reader.frames(file, *frames)
    found = _STARTS.search(file.at(0, _LEADING_BYTES))
    if found is not None and found.start():
        return reader.behind_junk(file, found)
    if reader.with_soundfile(file):
        return reader.plan
    if not reader.is_known_to_ffmpeg(file) and (frames := find_frames(file)) is not None:
        return reader.frames(file, *frames)
    reader.add_av(file)
    return reader.plan


class _Reader:
    """Adds parts to a plan."""

    def __init__(self, source: Source, file: Ranges, track: int | None, damaged: Damaged, with_soundfile: bool) -> None:
        self.source, self.file, self.track, self.damaged = source, file, track, damaged
        self.uses_soundfile = with_soundfile
        self.name = source.name
        self.plan = _Plan()

    def wav(self, file: Ranges) -> bool:
        parts = wav_parts(file)
        for part in parts:
            self.plan.remarks += part.remarks
            self.plan.missing_end = self.plan.missing_end or part.missing_end
            is_all = len(parts) == 1 and not part.is_changed and file is self.file
            content = file if is_all else part.content
            if part.is_plain and self._opens(content):
                self._add_soundfile(content, part.seconds)
            else:
                self.add_av(content, "wav")
        return bool(parts)

    def flac(self, file: Ranges) -> _Plan:
        parts = flac_parts(file)
        if len(parts) > 1:
            self.plan.remarks.append(f"It is {len(parts)} recordings joined; all were read.")
        for start, length in parts:
            content = file if len(parts) == 1 else file.cut(start, length)
            header = flac_header(content)
            self.plan.missing_end = self.plan.missing_end or header.missing_end
            if not header.missing_end:  # by another rate than that of its frames, a damaged file would last for hours
                check_rate(self.name, header.rate_hz)
            opener = partial(self.open_flac, content)
            if self.damaged == "refuse" and self._opens(content):
                self._add_soundfile(content, header.seconds, opener, header.checker)
            else:
                self.plan.parts.append(_Part(opener, header.seconds))
        return self.plan

    def ogg(self, file: Ranges) -> _Plan:
        scan = scan_ogg(file)
        self.plan.remarks += scan.remarks
        links = [link for link in scan.links if link.streams]
        if not links:
            self.add_av(file, "ogg")
            return self.plan
        for number, link in enumerate(links):
            content = file if link.pieces == [(0, file.size)] else Ranges(file, link.pieces)
            damage = "; ".join(link.damage[:3])
            which = f"in part {number + 1}, " if len(links) > 1 else ""
            if link.missing_end and not self.plan.missing_end:
                self.plan.missing_end = which + link.missing_end
            if link.is_simple and self.damaged == "refuse" and self._opens(content):
                self._add_soundfile(content, link.seconds, partial(self.open_av, content, "ogg"))
            else:
                self.add_av(content, "ogg", link.seconds, damage and which + damage)
        return self.plan

    def open_flac(self, content: Ranges) -> contextlib.AbstractContextManager[tuple[AudioInfo, Iterator[Block]]]:
        return self.open_av(content, "flac", checker=flac_header(content).checker())

    def container(self, file: Ranges, structure: Structure) -> _Plan:
        self.plan.missing_end = structure.missing_end
        if self.with_soundfile(file):
            return self.plan
        if len(structure.parts) > 1:
            self.plan.remarks.append(f"It is {len(structure.parts)} recordings joined; all were read.")
        for begin, length in structure.parts:
            self.add_av(file if length == file.size else file.cut(begin, length))
        return self.plan

    def behind_junk(self, file: Ranges, found: re.Match[bytes]) -> _Plan:
        """A file whose real beginning is not at its first byte."""
        rest, name = file.cut(found.start()), found[0][:4]
        if file.at(0, 3) != b"ID3":
            self.plan.remarks.append(f"{found.start()} bytes in front of it that are no audio were passed over.")
        if name == b"fLaC":
            return self.flac(rest)
        if name == b"OggS":
            return self.ogg(rest)
        if not self.wav(rest):
            self.add_av(rest)
        return self.plan

    def is_known_to_ffmpeg(self, file: Ranges) -> bool:
        from mt3core.audio.av_reader import audio_streams  # FFmpeg is loaded only for files that need it

        return bool(audio_streams(file))

    def frames(self, file: Ranges, codec: str, start: int) -> _Plan:
        scan = scan_frames(file, codec, start)
        self.plan.remarks += scan.remarks
        self.plan.missing_end = scan.missing_end
        content = Ranges(file, scan.pieces)
        format = "eac3" if codec == "ac3" and content.at(5, 1)[0] >> 3 > 10 else codec

        opener = partial(self.open_av, content, format, losses=scan.losses, seconds=scan.seconds)
        self.plan.parts.append(_Part(opener, scan.seconds))
        return self.plan

    def with_soundfile(self, file: Ranges) -> bool:
        """Adds the whole file for libsndfile, if that reads it; raises if its header shows a missing end."""
        opened = starts_like_soundfile(file.at(0, 4)) and self._opens(file)
        if opened:
            self._add_soundfile(file)
        return opened

    def add_av(
        self, content: Ranges, format: str | None = None, seconds: float | None = None, damage: str = ""
    ) -> None:
        self.plan.parts.append(_Part(partial(self.open_av, content, format, damage=damage), seconds))

    @contextlib.contextmanager
    def open_av(
        self,
        content: Ranges,
        format: str | None = None,
        losses: dict[int, int] | None = None,
        seconds: float | None = None,
        damage: str = "",
        checker: FlacChecker | None = None,
    ) -> Iterator[tuple[AudioInfo, Iterator[Block]]]:
        from mt3core.audio.av_reader import open_with_av

        with open_with_av(self.name, content, self.track, format, losses, checker) as audio:
            info = audio.info
            if seconds is not None:
                info = AudioInfo(seconds, info.sample_rate_hz, info.channels, info.format)
            self.plan.remarks += audio.remarks
            del audio.remarks[:]

            def blocks() -> Iterator[Block]:
                yield from audio.blocks()
                self._judge(audio.lost, damage or audio.lost.wrong_checksum)
                self.plan.remarks += audio.remarks

            yield info, blocks()

    def _judge(self, lost: Lost, damage: str) -> None:
        """Refuses, or remarks on, what could not be decoded."""
        problems = []
        if lost.places:
            problems.append(f"{lost} cannot be decoded")
        elif damage:
            problems.append(damage)
        if lost.missing_end:
            problems.append(lost.missing_end)
        if not problems:
            return
        if self.damaged == "refuse":
            raise cut_off_error(self.name, "; ".join(problems))
        if lost.places:
            self.plan.remarks.append(f"It is damaged: {lost} could not be decoded; silence stands there.")
        elif damage:
            self.plan.remarks.append(f"It is damaged: {damage}; what is there was read.")
        if lost.missing_end:
            self.plan.remarks.append(f"It is truncated: {lost.missing_end}; what is there was read.")

    def _opens(self, content: Ranges) -> bool:
        if not self.uses_soundfile:
            return False
        try:
            with self._sound_file(content) as file:
                return file.format not in _NOT_WITH_SOUNDFILE or content.at(0, 4) == b"OggS"
        except (soundfile.SoundFileError, TypeError, ValueError):
            return False

    def _sound_file(self, content: Ranges) -> soundfile.SoundFile:
        """By its path if it is the whole file, which is faster; names need not be UTF-8, but on Windows are text."""
        if content is self.file and self.source.path is not None and content.at(0, 4) in (b"RIFF", b"fLaC", b"RF64"):
            path = self.source.path
            return _SequentialFile(path if os.name == "nt" else os.fsencode(path))
        content.seek(0)
        return _SequentialFile(content)

    def _add_soundfile(
        self,
        content: Ranges,
        seconds: float | None = None,
        second: Opener | None = None,
        make_checker: Callable[[], FlacChecker | None] = lambda: None,
    ) -> None:
        @contextlib.contextmanager
        def opened() -> Iterator[tuple[AudioInfo, Iterator[Block]]]:
            if self.track not in (None, 1):
                raise AudioError(f"{self.name} has 1 audio track; there is no track {self.track}.", "Use --track 1.")
            with self._sound_file(content) as file:
                self._check_header(file)
                frames = None if file.frames >= _UNKNOWN_FRAMES else file.frames
                info = AudioInfo(
                    duration_seconds=None if frames is None else frames / file.samplerate,
                    sample_rate_hz=file.samplerate,
                    channels=file.channels,
                    format=f"{file.format} {file.subtype}",
                )
                yield info, self._sound_blocks(file, frames, second, make_checker())

        self.plan.parts.append(_Part(opened, seconds))

    def _check_header(self, file: soundfile.SoundFile) -> None:
        """One size per format: of the samples in WAV, CAF, AIFF and AU, of the whole file (`riff`) in W64."""
        for declared, there in re.findall(
            r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", file.extra_info, re.M
        ):
            if int(there) < int(declared) < _UNKNOWN_BYTES:
                reason = f"it has {there} of the {declared} bytes announced in its header"
                if not self.plan.missing_end:
                    self._note_end(reason)

    def _sound_blocks(
        self, file: soundfile.SoundFile, frames: int | None, second: Opener | None, checker: FlacChecker | None
    ) -> Iterator[Block]:
        block_frames = max(1024, BLOCK_VALUES // file.channels)
        done = 0
        # Integers are needed for the checksum; divided by their full scale they are what libsndfile gives as floats.
        dtype = "float32" if checker is None else "int16" if file.subtype == "PCM_16" else "int32"
        while True:
            try:
                block = file.read(block_frames, dtype=dtype, always_2d=True)
            except soundfile.SoundFileError:
                self._read_again(second)
                self._note_end(f"it ends somewhere after {done / file.samplerate:.1f} s")
                return
            if not len(block):
                break
            done += len(block)
            if checker is not None:
                checker.add(block)
                block = block.astype(np.float32)
                block *= np.float32(1 / 32768 if dtype == "int16" else 1 / 2147483648)
            yield block
        if frames is not None and done < frames:
            self._read_again(second)
            self._note_end(f"it ends at {done / file.samplerate:.1f} s of {frames / file.samplerate:.1f} s")

        if checker is not None and not checker.matches:
            self._read_again(second)  # a header that counts too few samples makes libsndfile stop early
            self._note_end(checker.problem)

    def _read_again(self, second: Opener | None) -> None:
        """Has FFmpeg say how much is lost, and where; it may find that nothing is."""
        if second is not None:
            with second() as (_, blocks):
                for _ in blocks:
                    pass
            raise ReadWithFFmpeg

    def _note_end(self, reason: str) -> None:
        if self.damaged == "refuse":
            raise cut_off_error(self.name, reason)
        self.plan.remarks.append(f"It is truncated: {reason}; what is there was read.")


class _SequentialFile(soundfile.SoundFile):
    """Read from start to end. soundfile otherwise seeks after every read, which fails at the end of a FLAC of
    unknown length and loses its last block."""

    def seekable(self) -> bool:
        return False
