"""Audio files made on the spot with PyAV's encoders, so that no recording of anybody lies in the repository."""

from fractions import Fraction

import av
import numpy as np

BLOCK = 960  # samples a frame where the encoder does not say; every encoder here takes it


def tone(seconds, rate_hz=48000, frequency_hz=440.0, channels=1):
    """(samples, channels) float32; the frequency sweeps upward, so that every moment sounds different."""
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    mono = 0.5 * np.sin(2 * np.pi * (frequency_hz + 40 * time) * time)
    return np.repeat(mono[:, None], channels, axis=1).astype(np.float32)


def lag_seconds(samples, expected):
    """How much later than expected the sound is, and how alike it is, from the middle of both at 16 kHz."""
    middle, length = len(expected) // 2, 4000
    part = samples[middle : middle + length]
    lags = np.arange(-1500, 1500)
    near = [expected[middle - lag : middle - lag + length] for lag in lags]
    alike = np.array([np.dot(part, one) / np.linalg.norm(part) / np.linalg.norm(one) for one in near])
    best = int(np.argmax(alike))
    return lags[best] / 16000, alike[best]


def encode(
    path,
    samples,
    rate_hz=48000,
    codec=None,
    container=None,
    tracks=None,
    starts=None,
    video_seconds=0.0,
    options=None,
    gaps=(),
    bit_rate=None,
    default_track=None,
    metadata=None,
):
    """Writes `samples`, or each array of `tracks`, as audio streams.

    `gaps` are (second of the samples, seconds) at which the timestamps jump; `starts` the time of each track's first
    sample; with `video_seconds` there is a picture from time 0.
    """
    tracks = [samples] if tracks is None else tracks
    starts = starts or [0.0] * len(tracks)
    with av.open(str(path), "w", format=container, options=options or {}) as output:
        output.metadata.update(metadata or {})
        video = None
        if video_seconds:
            video = output.add_stream({"webm": "libvpx", "flv": "flv"}.get(container, "mpeg4"), rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        streams = []
        for number, track in enumerate(tracks):
            layout = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}[track.shape[1]]
            stream = output.add_stream(codec, rate=rate_hz, layout=layout)
            if bit_rate or codec.startswith("wma"):
                stream.bit_rate = bit_rate or 128_000
            if default_track is not None:
                stream.disposition = 1 if number == default_track else 0
            streams.append(stream)
        packets = []
        if video is not None:
            for number in range(int(video_seconds * 10)):
                frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number % 256, np.uint8), "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 10)
                packets += video.encode(frame)
            packets += video.encode(None)
        for stream, track, start in zip(streams, tracks, starts, strict=True):
            packets += _encode_track(stream, track, start, gaps)
        for packet in sorted(packets, key=lambda one: float((one.dts or 0) * one.time_base)):
            output.mux(packet)
    return path


def _encode_track(stream, samples, start, gaps):
    context, rate_hz = stream.codec_context, stream.rate
    context.open()
    format, size = context.format.name, context.frame_size or BLOCK
    packets = []
    for first in range(0, len(samples), size):
        block = samples[first : first + size]
        late = sum(length for place, length in gaps if first / rate_hz >= place)
        frame = av.AudioFrame.from_ndarray(_converted(block, format), format, context.layout.name)
        frame.sample_rate = rate_hz
        frame.pts, frame.time_base = first + round((start + late) * rate_hz), Fraction(1, rate_hz)
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _converted(block, format):
    kind = format.removesuffix("p")
    scale = {"u8": 127, "s16": 32767, "s32": 2147483000}.get(kind)
    if scale is None:
        values = block.astype({"flt": np.float32, "dbl": np.float64}[kind])
    else:
        dtype = {"u8": np.uint8, "s16": np.int16, "s32": np.int32}[kind]
        values = (np.round(block.astype(np.float64) * scale) + (128 if kind == "u8" else 0)).astype(dtype)
    return np.ascontiguousarray(values.T if format.endswith("p") else values.reshape(1, -1))
