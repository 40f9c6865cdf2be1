"""Half a second of a tone and noise in every format that FFmpeg's libraries and libsndfile write."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from reliability.findings import Found
from reliability.kinds import Kind, Reading, Source, digest_of
from reliability.mutations import mend_wav

RATE_HZ = 44_100
SECONDS = 0.5
_LOSSY_SLACK_SECONDS = 0.08  # a frame or two of the longest kind, of decoders that conceal one
_WMA_SLACK_SECONDS = 0.15  # two frames, and what the length in milliseconds counts beyond the sound
INDEX = "index.json"

# File name -> (container, codec, rate, layout, options, states its end, has checksums)
_ENCODED: dict[str, tuple[str, str, int, str, dict[str, str], bool, bool]] = {
    "xing.mp3": ("mp3", "libmp3lame", RATE_HZ, "stereo", {}, True, False),
    "variable.mp3": ("mp3", "libmp3lame", RATE_HZ, "stereo", {"q": "4"}, True, False),
    "no_xing.mp3": ("mp3", "libmp3lame", RATE_HZ, "mono", {"write_xing": "0"}, False, False),
    "layer2.mp2": ("mp2", "mp2", RATE_HZ, "stereo", {}, False, False),
    "aac.m4a": ("ipod", "aac", RATE_HZ, "stereo", {}, True, False),
    "aac_faststart.m4a": ("ipod", "aac", RATE_HZ, "stereo", {"movflags": "faststart"}, True, False),
    "aac.mp4": ("mp4", "aac", RATE_HZ, "mono", {}, True, False),
    "alac.m4a": ("ipod", "alac", RATE_HZ, "stereo", {}, True, False),
    "alac_faststart.m4a": ("ipod", "alac", RATE_HZ, "stereo", {"movflags": "faststart"}, True, False),
    "pcm.mov": ("mov", "pcm_s16be", RATE_HZ, "stereo", {"movflags": "faststart"}, True, False),
    "alac.caf": ("caf", "alac", RATE_HZ, "stereo", {}, True, False),
    "adts.aac": ("adts", "aac", RATE_HZ, "stereo", {}, False, False),
    "ac3.ac3": ("ac3", "ac3", 48_000, "stereo", {}, False, False),
    "windows.wma": ("asf", "wmav2", RATE_HZ, "stereo", {}, True, False),
    "opus.webm": ("webm", "libopus", 48_000, "stereo", {}, True, False),
    "flac.mka": ("matroska", "flac", RATE_HZ, "stereo", {}, True, False),
    "aac.ts": ("mpegts", "aac", RATE_HZ, "stereo", {}, False, False),
    "wavpack.wv": ("wv", "wavpack", RATE_HZ, "stereo", {}, True, False),
    "true_audio.tta": ("tta", "tta", RATE_HZ, "stereo", {}, True, False),
    "pcm.avi": ("avi", "pcm_s16le", RATE_HZ, "stereo", {}, True, False),
    "mp3.wav": ("wav", "libmp3lame", RATE_HZ, "stereo", {}, True, False),
    "opus.opus": ("opus", "libopus", 48_000, "stereo", {}, True, True),
    "flac.oga": ("oga", "flac", RATE_HZ, "stereo", {}, True, True),
}
# File name -> (format, subtype, states its end, has checksums) of libsndfile
_WRITTEN: dict[str, tuple[str, str, bool, bool]] = {
    "pcm16.wav": ("WAV", "PCM_16", True, False),
    "pcm24.wav": ("WAV", "PCM_24", True, False),
    "float.wav": ("WAV", "FLOAT", True, False),
    "adpcm.wav": ("WAV", "MS_ADPCM", True, False),
    "extensible.wav": ("WAVEX", "PCM_16", True, False),
    "long.w64": ("W64", "PCM_16", True, False),
    "large.rf64": ("RF64", "PCM_16", True, False),
    "pcm16.aiff": ("AIFF", "PCM_16", True, False),
    "sun.au": ("AU", "PCM_16", True, False),
    "pcm16.caf": ("CAF", "PCM_16", True, False),
    "flac.flac": ("FLAC", "PCM_16", True, True),
    "vorbis.ogg": ("OGG", "VORBIS", True, True),
    "sndfile_opus.ogg": ("OGG", "OPUS", True, True),
}
_LOSSLESS = (".wav", ".w64", ".rf64", ".aiff", ".au", ".caf", ".flac", ".oga", ".wv", ".tta", ".mov", ".avi", ".mka")


class Audio(Kind):
    """`read_audio` of whole files, with damage refused and kept, and `mt3 prepare` of a folder with one."""

    name = "audio"

    @classmethod
    def build(cls, folder: Path) -> None:
        index: dict[str, tuple[bool, bool]] = {}
        for name, (container, codec, rate_hz, layout, options, *says) in _ENCODED.items():
            _encode(folder / name, container, codec, rate_hz, layout, options)
            index[name] = (says[0], says[1])
        for name, (format_name, subtype, *says) in _WRITTEN.items():
            rate_hz = 48_000 if subtype == "OPUS" else RATE_HZ
            data = io.BytesIO()
            soundfile.write(data, _sound(rate_hz).T, rate_hz, format=format_name, subtype=subtype)
            (folder / name).write_bytes(data.getvalue())
            index[name] = (says[0], says[1])
        (folder / INDEX).write_text(json.dumps(index))

    def open(self) -> None:
        from mt3core.audio.load import probe_audio, read_audio

        self._read_audio, self._probe = read_audio, probe_audio
        index = json.loads((self.folder / INDEX).read_text())
        self.sources = [self._source(name, *says) for name, says in index.items()]

    def _source(self, name: str, states_end: bool, is_checked: bool) -> Source:
        data = (self.folder / name).read_bytes()
        is_lossless = name.endswith(_LOSSLESS) and "alac" not in name and name != "mp3.wav"
        lossy_slack = _WMA_SLACK_SECONDS if name.endswith(".wma") else _LOSSY_SLACK_SECONDS
        return Source(
            name,
            data,
            states_end,
            is_checked,
            header_bytes=_header_bytes(name, data),
            slack=0.0 if is_lossless else 16_000 * lossy_slack,
            mend=mend_wav if name.startswith("pcm") and name.endswith(".wav") else None,
        )

    def read(self, source: Source, data: bytes) -> Reading:
        from mt3core.errors import AudioError

        path = self.place(source.name, data)
        try:
            self._probe(path)
            loaded = self._read_audio(path)
        except AudioError:
            kept = self._keep_damaged(path)
            if kept is not None and not kept.remarks:
                raise Found("wrong acceptance", "refused, but kept as damaged without a word") from None
            raise
        return Reading(len(loaded.samples), digest_of(loaded.samples), loaded.remarks)

    def _keep_damaged(self, path: Path) -> Any:
        """What `--damaged keep` makes of it; None if that refuses, too."""
        from mt3core.errors import AudioError

        try:
            return self._read_audio(path, damaged="keep")
        except AudioError:
            return None

    def command(self, source: Source, data: bytes) -> tuple[list[str], Sequence[Path]] | None:
        folder, out = self.scratch / "pair", self.scratch / "prepared"
        self.place(f"pair/{source.name}", data)
        self.place(f"pair/{Path(source.name).stem}.mid", _PLAIN_MIDI)
        return ["prepare", "folder", str(folder), "--out", str(out), "--processes", "1"], (folder, out)


_PLAIN_MIDI = bytes.fromhex("4d546864000000060000000100644d54726b0000000c00903c6064803c4000ff2f00")


def _sound(rate_hz: int, channels: int = 2) -> np.ndarray:
    """Float32 of shape (channels, samples): a tone, other in each channel, over a little noise."""
    time = np.arange(int(SECONDS * rate_hz)) / rate_hz
    noise = np.random.default_rng(7).normal(0, 0.01, (channels, len(time)))
    tones = [0.3 * np.sin(2 * np.pi * hz * time) for hz in (440.0, 554.4)[:channels]]
    return (np.stack(tones) + noise).astype(np.float32)


def _encode(path: Path, container: str, codec: str, rate_hz: int, layout: str, options: dict[str, str]) -> None:
    import av

    channels = 1 if layout == "mono" else 2
    to_container = {name: value for name, value in options.items() if name != "q"}
    sound = _sound(rate_hz, channels)
    with av.open(str(path), "w", format=container, options=to_container) as file:
        stream: Any = file.add_stream(codec, rate=rate_hz, layout=layout)
        if "q" in options:
            stream.codec_context.options = {"q": options["q"]}
        else:
            stream.codec_context.bit_rate = 128_000
        stream.codec_context.open()
        frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate_hz, 0
        resampler = av.AudioResampler(
            stream.codec_context.format, layout, rate_hz, frame_size=stream.codec_context.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))


def _header_bytes(name: str, data: bytes) -> int:
    """Where the samples begin, roughly; the header is what comes before."""
    for mark in (b"data", b"SSND", b"mdat"):
        if (place := data.find(mark)) >= 0:
            return place + 16
    return 64 if name.endswith((".mp3", ".mp2", ".aac", ".ac3", ".ts", ".au", ".tta", ".wv")) else 1024
