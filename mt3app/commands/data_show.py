"""`mt3 data show`: one example to hear and see, with its notes read back from the tokens that training uses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mt3app.outputs import check_writable
from mt3app.progress import Reporter
from mt3core.errors import UsageError
from mt3core.extras import is_installed, needed

if TYPE_CHECKING:
    from mt3app.cli_data import ShowOptions
    from mt3core.config.model import ModelConfig
    from mt3core.notes.table import NoteTable
    from mt3data.examples.example_streams import ExampleStream
    from mt3data.examples.examples import Example
    from mt3data.prepare.manifest import Manifest

# In the picture: below this the recording is black.
LOWEST_LOG_MEL = -8.0
DRUMS_AT_PITCH = 20  # the line of the picture on which drums are drawn


def show_example(options: ShowOptions, reporter: Reporter) -> None:
    """Writes example `number` as `example_N.wav`, `.mid` and `.png` to `folder` and prints what it is made from.

    The number and seed select the same example as in training. Notes that sounded before the segment
    start with it. Raises `DatasetError` for missing or damaged data, `UsageError` for a number out of range.
    """
    import soundfile

    from mt3core.config.model import PRESETS
    from mt3core.files import atomic_output
    from mt3core.notes.midi_writing import write_midi
    from mt3data.checks.music_checks import tuned, tuning_cents
    from mt3data.examples.example_streams import waveform
    from mt3data.prepare.manifest import read_manifest

    if options.preset not in PRESETS:
        raise UsageError(f"Unknown preset {options.preset!r}.", f"Choose from {', '.join(PRESETS)}.")
    pyplot = _pyplot()
    model, number = PRESETS[options.preset], options.number
    manifest = read_manifest(options.manifest)
    stream = _stream(manifest, model, options)
    if number >= stream.num_examples:
        size = f"The split {options.split} has {stream.num_examples}, counted from 0."
        raise UsageError(f"There is no segment {number}.", size)
    targets = {suffix: options.output / f"example_{number}.{suffix}" for suffix in ("wav", "mid", "png")}
    check_writable(list(targets.values()))
    example = stream.example(number)
    notes = example_notes(example, model)
    with atomic_output(targets["wav"]) as path:
        soundfile.write(path, example.samples, model.spectrogram.sample_rate_hz)
    write_midi(notes, targets["mid"])
    with atomic_output(targets["png"]) as path:
        figure = _draw(pyplot, example, notes, model, f"example {number}")
        figure.savefig(path, dpi=110, format="png")
        pyplot.close(figure)
    for line in _description(example, manifest, notes, model):
        print(line)
    if len(notes) and not notes["is_drum"].all() and is_installed("librosa"):
        print(f"tuned {tuned(tuning_cents(waveform(example.samples), model.spectrogram.sample_rate_hz))}, by its sound")
    reporter.line(f"Written: {', '.join(str(path) for path in targets.values())}")


def example_notes(example: Example, model: ModelConfig) -> NoteTable:
    """The notes in the example's tokens, in seconds from the segment's start.

    Notes in the tie section started earlier; here they start at 0. Notes without an end in the segment end with it.
    """
    from mt3core.notes.decoding import NoteDecoder
    from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS

    decoder = NoteDecoder(model.vocabulary)
    vocabulary = decoder.vocabulary
    events = vocabulary.events_before_end(example.tokens)
    tie = vocabulary.first_id("tie")
    if model.vocabulary.ties and tie in events:
        section = events[: int(np.argmax(events == tie))]
        loudest = vocabulary.event_id("velocity", model.vocabulary.velocity_bins)
        decoder.add_events(0.0, np.concatenate([[tie, loudest], section]), None)
    decoder.add_segment(0.0, events + NUM_SPECIAL_TOKENS, None)
    sounding = set(decoder.sounding)
    notes = decoder.finish()
    end_seconds = example.num_frames / model.spectrogram.frames_per_second
    for row in range(len(notes) - len(sounding), len(notes)):
        notes["offset"][row] = max(end_seconds, notes["offset"][row])
    return notes[np.argsort(notes["onset"], kind="stable")]


def _stream(manifest: Manifest, model: ModelConfig, options: ShowOptions) -> ExampleStream:
    """The examples of training or evaluation by number. Without Grain, which only transports them."""
    from mt3core.config.data import DataConfig, DatasetChoice
    from mt3data.examples.chunk_table import ChunkTable
    from mt3data.examples.example_streams import EvaluationStream, TrainingStream
    from mt3data.examples.examples import ExampleConfig, ExampleMaker
    from mt3data.examples.sampling import Sampler

    data = DataConfig(datasets=(DatasetChoice(options.dataset),) if options.dataset else ())
    maker = ExampleMaker(ExampleConfig(model=model), ChunkTable.from_manifest(manifest))
    if not options.evaluation:
        return TrainingStream(maker, Sampler(manifest, maker.table, options.split, data, options.seed))
    return EvaluationStream(maker, np.flatnonzero(manifest.recordings(options.split, data.datasets)))


def _pyplot() -> Any:
    with needed("evaluate", "A picture"):
        import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot

    return matplotlib.pyplot


def _draw(pyplot: Any, example: Example, notes: NoteTable, model: ModelConfig, title: str) -> Any:
    """The log-mel with the notes over it, each at the band of its pitch, and below the notes alone."""
    from mt3core.spectrogram import segment_log_mel
    from mt3data.examples.example_streams import waveform

    rows = segment_log_mel(waveform(example.samples), example.num_frames, model.spectrogram)[: example.num_frames]
    seconds = example.num_frames / model.spectrogram.frames_per_second
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(10, 7), sharex=True, height_ratios=[3, 2])
    # A frame shows the window that starts with it and is drawn at the window's middle; the first also shows what is
    # before that, so that the recording begins at the edge of the picture.
    spectrogram = model.spectrogram
    starts = np.arange(example.num_frames + 1) * spectrogram.hop_samples
    edges = (starts + (spectrogram.fft_samples - spectrogram.hop_samples) / 2) / spectrogram.sample_rate_hz
    edges[0] = 0.0
    bands = np.arange(spectrogram.mel_bands + 1)
    above.pcolormesh(edges, bands, np.maximum(rows.T, LOWEST_LOG_MEL), cmap="magma", rasterized=True)
    above.set(ylabel="mel band", title=f"{title}: log-mel with the fundamentals of the notes", ylim=bands[[0, -1]])
    names = dict.fromkeys(notes["program"][~notes["is_drum"]].tolist())
    colours = {program: f"C{number % 10}" for number, program in enumerate(names)}
    for note in notes[~notes["is_drum"]]:
        span, colour = [note["onset"], note["offset"]], colours[int(note["program"])]
        above.plot(span, [_band(int(note["pitch"]), model)] * 2, color=colour, linewidth=1.5)
        below.plot(span, [note["pitch"]] * 2, color=colour, linewidth=3, solid_capstyle="butt")
        below.plot(span[0], note["pitch"], "|", color=colour, markersize=8)
    hits = notes[notes["is_drum"]]
    if len(hits):
        above.plot(hits["onset"], np.full(len(hits), 6), "|", color="white")
        below.plot(hits["onset"], np.full(len(hits), DRUMS_AT_PITCH), "|", color="black")
    for program, colour in colours.items():
        below.plot([], [], color=colour, label=_name(program))
    if colours:
        below.legend(loc="upper right", fontsize="small")
    below.set(xlabel="seconds", ylabel="pitch (drums at the bottom)", xlim=(0, seconds))
    figure.tight_layout()
    return figure


def _band(pitch: int, model: ModelConfig) -> float:
    """The mel band with a pitch's fundamental in its middle: bands are even steps of ln(1 + f / 700)."""
    spectrogram = model.spectrogram
    low, high, here = (
        np.log1p(hz / 700) for hz in (spectrogram.low_hz, spectrogram.high_hz, 440 * 2 ** ((pitch - 69) / 12))
    )
    return float((here - low) / (high - low) * (spectrogram.mel_bands + 1) - 0.5)


def _name(program: int) -> str:
    import pretty_midi

    return pretty_midi.program_to_instrument_name(program) if 0 <= program <= 127 else f"program {program}"


def _description(example: Example, manifest: Manifest, notes: NoteTable, model: ModelConfig) -> list[str]:
    lines = []
    for row, frame in zip(example.rows, example.first_frames, strict=True):
        names = "/".join(str(manifest[name][row]) for name in ("dataset", "split", "track", "stem"))
        kind = manifest["instrument_class"][row]
        seconds = frame / model.spectrogram.frames_per_second
        lines.append(f"{names}{f' ({kind})' if kind else ''} from {seconds:.3f} s, row {row} of the manifest")
    drums = int(notes["is_drum"].sum())
    limit = model.network.max_target_tokens
    cut = f", cut to {len(example.tokens)}" if example.num_tokens > limit else ""
    lines.append(f"{example.num_tokens} tokens{cut}: {len(notes) - drums} notes and {drums} drum hits")
    return lines
