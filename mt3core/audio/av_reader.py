"""Audio through PyAV (FFmpeg's libraries): every compressed format, and the sound of videos.

FFmpeg goes on whatever happens. What it could not decode, and the gaps that its timestamps show, are noted here and
become silence of the same length, so that everything after them keeps its time.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from mt3core.audio.flac import FlacChecker, stream_info
from mt3core.audio.source import Ranges
from mt3core.audio.stream import BLOCK_VALUES, AudioInfo, RateChange, seconds_text
from mt3core.errors import AudioError

# Formats that are recognised by their content. Not among them: playlists and scripts, which open other files, text,
# pictures, and formats that FFmpeg suspects in any noise. Sequences of frames (mp3, aac, ac3) are found by `frames`.
FORMATS = (
    "aiff,amr,amrnb,amrwb,ape,asf,asf_o,au,avi,bonk,caf,dsf,dts,dtshd,dv,flac,flv,gxf,iff,ircam,kux,live_flv,"
    "loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mlp,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nsv,oga,ogg,oma,osq,qcp,"
    "qoa,rka,rm,shn,sox,tak,truehd,tta,voc,vqf,w64,wav,wsd,wtv,wv,xwma"
)
# Containers with a clock of their own. Elsewhere FFmpeg counts frames, and a jump means nothing.
_CLOCKED = {
    "asf",
    "flac",
    "flv",
    "gxf",
    "live_flv",
    "matroska",
    "mov",
    "mpeg",
    "mpegts",
    "mxf",
    "ogg",
    "rm",
    "wtv",
}
# Those that are cut from broadcasts: their clock may start anew, and they begin in the middle of something.
_BROADCAST = {"mpeg", "mpegts", "loas"}
_LONGEST_BROADCAST_GAP_SECONDS = 10.0
_LONGEST_GAP_SECONDS = 6 * 3600.0
# Headers of these say how long the sound is; elsewhere FFmpeg's length is an estimate.
_STATING = {"ape", "asf", "dsf", "flac", "flv", "matroska", "mov", "mpc", "mpc8", "tak", "tta", "wv"}
# The clock of a container counts milliseconds, and encoders' delays are cut off within them: what is less is no gap.
_GAP_SECONDS = 0.010
_JUMP_SECONDS = 0.005  # of one frame to the next; a slow drift is only followed when it adds up to
_DRIFT_SECONDS = 0.050
_OGG_GAP_SECONDS = 0.050  # the time of a page of Vorbis is only known to about a quarter of a block
_STATED_TOLERANCE_SECONDS = 0.05  # and two frames of lossy codecs
_EXACT = {"flac", "tak", "tta", "wv"}  # whose stated length is the number of samples
_LOSSLESS = {"alac", "ape", "flac", "tak", "tta", "wavpack"}
_BEYOND_STATED_SECONDS = 5.0  # a gap that leads further past the stated length is a wrong timestamp
_MOST_BYTES_AT_ONCE = 1 << 20
_MOST_READ_ERRORS = 8
_MOST_FAILURES_AT_START = 1000  # packets; if none of them decodes, nothing will
# Codecs whose every packet gives sound: one without any was damaged, though no error is reported.
_SOUND_IN_EVERY_PACKET = {
    "aac",
    "ac3",
    "alac",
    "amrnb",
    "eac3",
    "flac",
    "mp2",
    "mp3",
    "mp3float",
    "opus",
    "tta",
    "wavpack",
}

_SCALES = {"u1": 1 << 7, "i2": 1 << 15, "i4": 1 << 31, "i8": 1 << 63}
_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}


@dataclass
class Lost:
    """What could not be decoded: (start, length) in seconds of each place."""

    places: list[tuple[float, float]] = field(default_factory=list)
    missing_end: str = ""
    wrong_checksum: str = ""

    def add(self, start: float, length: float) -> None:
        if self.places and start - sum(self.places[-1]) < 0.5 * length:
            self.places[-1] = (self.places[-1][0], start + length - self.places[-1][0])
        else:
            self.places.append((start, length))

    def __str__(self) -> str:
        """ "0.13 s at 1.41 s" """
        starts = [seconds_text(start) for start, _ in self.places]
        listed = ", ".join(starts[:5]) + (f" and {len(starts) - 5} more places" if len(starts) > 5 else "")
        return f"{seconds_text(sum(length for _, length in self.places))} at {listed}"


@dataclass
class AvAudio:
    """An open container with the audio track that is read; `blocks` can be read once."""

    name: str
    container: Any
    stream: Any
    info: AudioInfo
    remarks: list[str]
    skipped: Mapping[int, int]
    checker: FlacChecker | None = None
    lost: Lost = field(default_factory=Lost)

    @property
    def _format(self) -> str:
        return str(self.container.format.name).split(",")[0]

    def blocks(self) -> Iterator[np.ndarray | RateChange]:
        """All its sound, with silence for what is missing; then `lost` says what could not be decoded."""
        return _Decoding(self).run()


@contextlib.contextmanager
def open_with_av(
    name: str,
    file: Ranges,
    track: int | None = None,
    format: str | None = None,
    lost: Mapping[int, int] | None = None,
    checker: FlacChecker | None = None,
) -> Iterator[AvAudio]:
    """Opens what FFmpeg recognises.

    Args:
        name: the name for messages; FFmpeg never sees it.
        track: the audio track, from 1; None for the one that is marked as default, or the first.
        format: a format of FFmpeg that the file certainly has.
        lost: by the number of a packet, how many samples are missing before it.
        checker: for FLAC, to compare the samples with their checksum.

    Raises `AudioError` if it is not recognised, has no audio, or not that track.
    """
    try:
        container = _open_container(file, format)
    except (av.FFmpegError, ValueError, MemoryError) as error:  # for which a damaged header may ask in vain
        raise not_audio(name) from error
    with container:
        remarks: list[str] = []
        stream = _choose(name, container, track, remarks)
        context = stream.codec_context
        # Only "explode" makes an error of a wrong checksum; lossy decoders would also refuse what is merely odd.
        context.options = {"err_detect": "crccheck+explode" if context.name in _LOSSLESS else "crccheck"}
        if context.name == "alac" and container.format.name == "caf":
            # Its last packet already is as short as the sound; FFmpeg cuts the difference off once more.
            context.options["flags2"] = "+skip_manual"
        info = AudioInfo(
            duration_seconds=_duration(container, stream),
            sample_rate_hz=context.sample_rate,
            channels=context.channels,
            format=f"{container.format.name.split(',')[0]} {context.name}",
        )
        # In Ogg the header comes first and cannot be completed: what it holds is no checksum of the whole.
        if context.name == "flac" and checker is None and container.format.name.split(",")[0] in ("matroska", "mov"):
            checker = _contained_checker(context.extradata, info.duration_seconds)
        yield AvAudio(name, container, stream, info, remarks, lost or {}, checker)


def _contained_checker(extradata: bytes | None, duration_seconds: float | None) -> FlacChecker | None:
    """The checksum of FLAC in Matroska or MP4, if it is that of these samples: an excerpt keeps that of the whole."""
    header = stream_info((extradata or b"")[-34:])
    if header.seconds is None or duration_seconds is None or abs(header.seconds - duration_seconds) > 2e-3:
        return None
    return header.checker()


def audio_streams(file: Ranges) -> int | None:
    """How many audio streams FFmpeg finds; None if it does not know the format."""
    try:
        with _open_container(file, None) as container:
            return len(container.streams.audio)
    except (av.FFmpegError, ValueError, MemoryError):
        return None


def _open_container(file: Ranges, format: str | None) -> Any:
    file.seek(0)
    options = {"protocol_whitelist": "none"} | ({} if format else {"format_whitelist": FORMATS})
    # Tags may be in any encoding, and are not read.
    return av.open(_Nameless(file), format=format, options=options, metadata_errors="replace")


def not_audio(name: str) -> AudioError:
    return AudioError(
        f"{name} cannot be read as audio.", "Use a WAV, FLAC, MP3, Ogg or M4A file, or a video with sound."
    )


class _Nameless:
    """Only what PyAV needs of a file, so that no name suggests a format."""

    def __init__(self, file: Ranges) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """At most a megabyte at a time: a damaged header may ask for gigabytes, and they would be reserved."""
        return self._file.read(min(size, _MOST_BYTES_AT_ONCE))


def _choose(name: str, container: Any, track: int | None, remarks: list[str]) -> Any:
    streams = list(container.streams.audio)
    if not streams:
        kinds = {"video": "pictures", "subtitle": "subtitles"}
        others = sorted({kinds.get(stream.type, stream.type) for stream in container.streams})
        has = f", only {' and '.join(others)}" if others else ""
        raise AudioError(f"{name} has no audio stream{has}.", "Use a file with sound.")
    if track is not None and not 1 <= track <= len(streams):
        count = "1 audio track" if len(streams) == 1 else f"{len(streams)} audio tracks"
        raise AudioError(f"{name} has {count}; there is no track {track}.", f"Use --track 1 to {len(streams)}.")
    if track is None:
        readable = [stream for stream in streams if _can_decode(stream)] or streams
        marked = [stream for stream in readable if int(getattr(stream, "disposition", 0)) & 1]
        chosen = (marked or readable)[0]
        if len(streams) > 1:
            number, why = streams.index(chosen) + 1, "which is marked as default" if len(marked) == 1 else ""
            why = f", {why}," if why else ""
            remarks.append(
                f"It has {len(streams)} audio tracks; track {number}{why} was read (--track chooses another)."
            )
    else:
        chosen = streams[track - 1]
        if len(streams) > 1:
            remarks.append(f"It has {len(streams)} audio tracks; track {track} was read, as asked.")
    if not _can_decode(chosen):
        raise AudioError(f"{name} has audio in a codec that cannot be decoded here.", "Convert it to WAV, FLAC or MP3.")
    return chosen


def _can_decode(stream: Any) -> bool:
    context = stream.codec_context
    return context is not None and bool(context.sample_rate) and bool(context.channels)


def _duration(container: Any, stream: Any) -> float | None:
    if stream.duration is not None and stream.time_base is not None:
        seconds = float(stream.duration * stream.time_base)
    else:
        seconds = (container.duration or 0) / av.time_base
    return seconds if seconds > 0 else None


class _Decoding:
    """One pass over the packets."""

    def __init__(self, audio: AvAudio) -> None:
        self.audio, self.lost, self.stream = audio, audio.lost, audio.stream
        self.format = audio._format
        self.least_gap = _OGG_GAP_SECONDS if self.format == "ogg" else _GAP_SECONDS
        self.is_clocked, self.is_broadcast = self.format in _CLOCKED, self.format in _BROADCAST
        self.gives_sound = self.stream.codec_context.name in _SOUND_IN_EVERY_PACKET
        self.rate_hz = float(audio.info.sample_rate_hz)
        stated = audio.container.duration if self.format in _STATING else None
        self.latest = stated / av.time_base + _BEYOND_STATED_SECONDS if stated else math.inf
        self.written_seconds = 0.0  # of parts with another rate
        self.written = 0  # samples at the present rate
        self.origin: float | None = None  # the timestamp of the first sample, in seconds
        self.previous_end: float | None = None
        self.pending = 0.0  # seconds of packets that did not decode, since the last frame
        self.without_sound = 0.0  # the same of packets that gave nothing, which is right for the last ones
        self.last_samples = 0
        self.gaps: list[tuple[float, float]] = []
        self.skipped_at_start = 0
        self.block = np.empty((0, 0), np.float32)  # (channels, samples)
        self.filled = 0
        self.sounds = False

    @property
    def now(self) -> float:
        return self.written_seconds + self.written / self.rate_hz

    def run(self) -> Iterator[np.ndarray | RateChange]:
        for number, packet in enumerate(self._packets()):
            if samples := self.audio.skipped.get(number):
                self.lost.add(self.now, samples / self.rate_hz)
                yield from self._silence(samples)
            try:
                frames = packet.decode()
            except (av.FFmpegError, ValueError):
                self._failed(packet)
                if not self.now and number > _MOST_FAILURES_AT_START:
                    break
                continue
            if packet.is_corrupt and packet.size:
                self.pending += 1e-9  # what is decoded of it counts; the gap behind it shows what is lost
            if not frames and packet.size and self.now and not packet.is_discard and self.gives_sound:
                self.without_sound += self._seconds(packet)
            for frame in frames:
                self.pending, self.without_sound = self.pending + self.without_sound, 0.0
                yield from self._frame(frame)
        yield from self._end()

    def _packets(self) -> Iterator[Any]:
        """All packets and the empty one that empties the decoder; tries to go on where reading fails."""
        errors = 0
        while True:
            try:
                for packet in self.audio.container.demux(self.stream):
                    if packet.size:
                        errors = 0
                    yield packet
                return
            # IndexError: PyAV does not know a stream that turned up later, as in damaged MPEG-TS.
            except (av.FFmpegError, ValueError, IndexError) as error:
                errors += 1
                if errors == 1:
                    self.lost.missing_end = f"reading fails after {seconds_text(self.now)} ({_reason(error)})"
                if errors > _MOST_READ_ERRORS:
                    return

    def _seconds(self, packet: Any) -> float:
        """How much a packet should have given; by the last one if the container only counts milliseconds."""
        is_exact = packet.duration and packet.time_base and packet.time_base.denominator > 1000
        if is_exact or (packet.duration and not self.last_samples):
            return float(packet.duration * packet.time_base)
        return self.last_samples / self.rate_hz or 1e-9

    def _failed(self, packet: Any) -> None:
        if not self.now and self.is_broadcast:
            self.skipped_at_start += 1
            return
        self.pending += self.without_sound + self._seconds(packet)
        self.without_sound = 0.0

    def _frame(self, frame: Any) -> Iterator[np.ndarray | RateChange]:
        samples = frame.samples
        if not samples:
            return
        if frame.sample_rate != self.rate_hz:
            yield from self._flush()
            self.written_seconds, self.written = self.now, 0
            self.rate_hz = float(frame.sample_rate)
            yield RateChange(self.rate_hz)
        start = float(frame.pts * frame.time_base) if frame.pts is not None and self.is_clocked else None
        gap = self._gap(start) if start is not None else 0.0
        is_known = start is None or abs(gap - self.pending) < self.least_gap
        missing = self.pending if is_known and self.pending > 1e-6 else gap
        if missing > 0:
            if self.pending or self.format == "flac":  # whose frames count samples: a jump is a loss
                self.lost.add(self.now, missing)
            yield from self._silence(round(missing * self.rate_hz))
        elif self.pending:
            self.lost.add(self.now, 0.0)
        self.pending = 0.0
        yield from self._append(frame, samples)
        self.written += samples
        self.last_samples = samples
        if start is not None:
            self.previous_end = start + samples / self.rate_hz

    def _append(self, frame: Any, samples: int) -> Iterator[np.ndarray]:
        channels = frame.layout.nb_channels
        if channels != len(self.block) or self.filled + samples > self.block.shape[1]:
            yield from self._flush()
            self.block = np.empty((channels, max(samples, 1024, BLOCK_VALUES // channels)), np.float32)
        place = self.block[:, self.filled : self.filled + samples]
        if frame.format.name == "fltp":  # most codecs: straight into the block
            for row, plane in zip(place, frame.planes, strict=True):
                row[:] = np.frombuffer(plane, np.float32, samples)
        else:
            place[:] = _values(frame)
        if self.audio.checker is not None:
            self.audio.checker.add(_raw_values(frame).T)
        self.filled += samples

    def _gap(self, start: float) -> float:
        """Seconds of silence before a frame with this timestamp."""
        if self.origin is None:
            late = start - self._others_start(start)
            late = late if late > _GAP_SECONDS else 0.0
            self.origin = start - late - self.now
            if late:
                self.audio.remarks.append(
                    f"Its sound begins {seconds_text(late)} after the picture; silence stands before it."
                )
            return late
        behind = start - self.origin - self.now
        jump = start - self.previous_end if self.previous_end is not None else 0.0
        is_new_clock = self.is_broadcast and max(-behind, jump) > _LONGEST_BROADCAST_GAP_SECONDS
        if is_new_clock or behind > _LONGEST_GAP_SECONDS or self.now + behind > self.latest:
            self.origin = start - self.now - self.pending
            self.audio.remarks.append(f"Its clock jumps at {seconds_text(self.now)}; the sound goes on there at once.")
            return self.pending
        if behind <= self.least_gap or (jump <= _JUMP_SECONDS and behind <= _DRIFT_SECONDS):
            return 0.0
        if not self.pending and self.format != "flac":
            self.gaps.append((self.now, behind))
        return behind

    def _others_start(self, start: float) -> float:
        """Where the picture starts on the container's clock; `start` if there is none."""
        starts = []
        for stream in self.audio.container.streams.video:
            if stream.start_time is not None and not int(getattr(stream, "disposition", 0)) & 0x400:  # cover art
                starts.append(float(stream.start_time * stream.time_base))
        return min([*starts, start])

    def _end(self) -> Iterator[np.ndarray | RateChange]:
        pending = self.pending if self.pending > 1e-6 else 0.0
        stated = self._stated_seconds()
        is_exact = self.format in _EXACT
        if is_exact:
            tolerance = 0.5 / self.rate_hz
        elif self.stream.codec_context.name in _LOSSLESS:  # without a delay that decoders cut off
            tolerance = _STATED_TOLERANCE_SECONDS
        else:
            tolerance = _STATED_TOLERANCE_SECONDS + 2 * self.last_samples / self.rate_hz
        if stated is not None and self.now + pending < stated - tolerance:
            self.lost.missing_end = f"it ends at {self.now:.1f} s of {stated:.1f} s"
        elif self.pending and not self.now:
            raise AudioError(
                f"{self.audio.name} has audio ({self.audio.stream.codec_context.name}) that cannot be decoded.",
                "Convert it to WAV, FLAC or MP3 with the program that made it.",
            )
        elif self.pending and not self.lost.missing_end:
            self.lost.add(self.now, pending)
            yield from self._silence(round(pending * self.rate_hz))
        elif is_exact and stated is not None and self.now > stated + tolerance:
            self.audio.remarks.append(
                f"Its header says that it has {seconds_text(stated)}; all {seconds_text(self.now)} were read."
            )
        yield from self._flush()
        checker = self.audio.checker
        if checker is not None and not (self.lost.places or self.lost.missing_end or checker.matches):
            self.lost.wrong_checksum = checker.problem
        if self.gaps:
            total, (first, _) = sum(length for _, length in self.gaps), self.gaps[0]
            more = f" and {len(self.gaps) - 1} more places" if len(self.gaps) > 1 else ""
            self.audio.remarks.append(
                f"Its timestamps leave {seconds_text(total)} without sound at {seconds_text(first)}{more}; silence"
                " stands there."
            )
        if self.skipped_at_start:
            self.audio.remarks.append("It begins in the middle of a frame, which was left out.")
        others = len(self.audio.container.streams.audio) - 1
        if others and not self.sounds:
            self.audio.remarks.append("The track that was read is silent; another one may be meant.")

    def _stated_seconds(self) -> float | None:
        """How long the file says that its sound is; None if only its pictures' length is known."""
        if self.format not in _STATING:
            return None
        if self.format in ("matroska", "flv"):  # one length for everything in it
            is_alone = not len(self.audio.container.streams.video) and len(self.audio.container.streams.audio) == 1
            length = self.audio.container.duration
            return length / av.time_base - max(0.0, self.origin or 0.0) if is_alone and length else None
        return self.audio.info.duration_seconds

    def _silence(self, samples: int) -> Iterator[np.ndarray]:
        yield from self._flush()
        channels = self.audio.info.channels
        step = max(1024, BLOCK_VALUES // channels)
        self.written += samples
        for first in range(0, samples, step):
            yield np.zeros((min(step, samples - first), channels), np.float32)

    def _flush(self) -> Iterator[np.ndarray]:
        if self.filled:
            block = self.block[:, : self.filled].T
            self.block, self.filled = np.empty((0, 0), np.float32), 0
            self.sounds = self.sounds or bool(block.any())
            yield block


def _values(frame: Any) -> np.ndarray:
    """A frame as float32 of shape (channels, samples), full scale at 1."""
    values = _raw_values(frame)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128 if values.dtype == np.uint8 else 0
    return ((values.astype(np.float64) - middle) / _SCALES[values.dtype.str[1:]]).astype(np.float32)


def _raw_values(frame: Any) -> np.ndarray:
    """Its numbers, of shape (channels, samples)."""
    format, channels, samples = frame.format, frame.layout.nb_channels, frame.samples
    dtype = _TYPES[format.name.removesuffix("p") if format.is_planar else format.name]
    if format.is_planar:
        return np.stack([np.frombuffer(plane, dtype, samples) for plane in frame.planes])
    return np.frombuffer(frame.planes[0], dtype, samples * channels).reshape(samples, channels).T


def _reason(error: BaseException) -> str:
    if isinstance(error, IndexError):
        return "its streams change"
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
