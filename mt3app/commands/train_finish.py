"""The optional end of a run: its model transcribes a held-out recording with every backend, and is scored.

RUN/model/                          the newest checkpoint as a model directory
RUN/held_out/recording.wav, .mid    the recording and its true notes
RUN/held_out/torch.mid, jax.mid     the transcriptions
RUN/held_out/piano_rolls.png        both in one picture
"""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from mt3app.backend import PACKAGES, choose_decoding, is_installed, load_transcriber
from mt3app.progress import Reporter
from mt3core.config.training import FinishConfig, TrainingConfig, ValidationConfig
from mt3core.config.values import decisive
from mt3core.files import atomic_output
from mt3core.notes.table import Note, to_notes
from mt3data.examples.pieces import Excerpt
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3data.prepare.composed import engine_of
from mt3data.readers.tracks import MIX

MODEL_FOLDER, HELD_OUT_FOLDER = "model", "held_out"
LOSS_NAME = "train/loss"
_TRAINED_SPLIT = "train"


def finish_run(config: TrainingConfig, run_directory: Path, reporter: Reporter) -> None:
    """Converts, transcribes, scores and draws. Raises `DatasetError` if the split has no recording."""
    from mt3convert.sources import convert
    from mt3core.notes.midi_writing import write_midi
    from mt3data.examples.pieces import as_written
    from mt3eval.piano_roll_picture import draw_piano_rolls

    model = run_directory / MODEL_FOLDER
    convert(run_directory, model, overwrite=True, to="model_directory")
    print(f"Model:      {model}")
    folder = run_directory / HELD_OUT_FOLDER
    piece, split = held_out_piece(config)
    audio = folder / "recording.wav"
    _write_audio(piece, audio)
    reference = to_notes(as_written(piece.notes, config.model.vocabulary))
    write_midi(reference, folder / "recording.mid")
    label = "Held out:" if split != _TRAINED_SPLIT else "Trained on:"  # of a few pieces none may be held out
    print(f"{label:11} {piece.name}, {piece.seconds:.1f} s, {len(reference)} notes ({audio})")
    found = {}
    for backend in filter(is_installed, PACKAGES):
        found[backend] = _transcribe(model, backend, audio, folder / f"{backend}.mid", reporter)
        print(f"{backend + ':':11} {_scores(reference, found[backend])}")
    if len(found) > 1:
        print(f"Backends:   {_agreement(list(found.values()))}")
    picture = folder / "piano_rolls.png"
    draw_piano_rolls(picture, reference, next(iter(found.values())), f"{config.name}: {piece.name}, held out")
    print(f"Picture:    {picture}")


def next_step(config: TrainingConfig, output: Path) -> str:
    """What to do with a finished run, as commands that can be copied."""
    if config.finish.transcribe:
        return f"Next: mt3 transcribe song.mp3 --model {_quoted(output / MODEL_FOLDER)}"
    model = Path("models", config.name)
    return f"Next: mt3 convert {_quoted(output)} {model}, then mt3 transcribe song.mp3 --model {model}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def held_out_piece(config: TrainingConfig) -> tuple[Excerpt, str]:
    """A recording of `finish.split` from the prepared data, the middle one, and its split.

    Data without a test split give one of the validation or, if they lack that as well, of the training split.
    """
    from mt3data.examples.chunk_table import ChunkTable, ShardReader
    from mt3data.examples.pieces import choose_pieces, read_piece
    from mt3data.prepare.manifest import read_manifest

    manifest = read_manifest(config.data.manifest)
    table = ChunkTable.from_manifest(manifest)
    splits = [config.finish.split]
    if splits == [FinishConfig().split]:
        splits += [ValidationConfig().split, _TRAINED_SPLIT]
    is_whole = manifest["stem"] == MIX
    split = next((one for one in splits if (manifest.belongs(one, config.data.datasets) & is_whole).any()), splits[0])
    chosen = manifest.recordings(
        split,
        config.data.datasets,
        "Set another split with finish.split, or switch this off: finish.transcribe=false.",
    )
    rows = choose_pieces(manifest, table, chosen, 1)[0]
    seconds = config.finish.piece_seconds or float(table.num_samples[rows].sum()) / SAMPLE_RATE_HZ
    return read_piece(manifest, table, rows, seconds, ShardReader(table.shard_paths)), split


def follows_curve(
    config: TrainingConfig, unchanged: TrainingConfig, run_directory: Path, curve_path: Path
) -> tuple[bool, str]:
    """Whether the run's loss was compared with the stored curve, and whether it stayed within the band, in words.

    `unchanged` is the config as its file says; a run with other settings has no curve to follow.
    """
    if _learning(config) != _learning(unchanged):
        return False, "not compared with the stored curve, which was recorded with other settings"
    from mt3jax.training.loss_curve import compare_curve, read_curve

    reports = loss_reports(run_directory)
    if not reports:
        return False, "nothing to compare with the stored curve"
    curve = read_curve(curve_path)
    if config.data.composed_pieces and engine_of(config.data.manifest) != curve.engine:
        return False, f"not compared with the stored curve, which was recorded with the sounds of {curve.engine}"
    compared = compare_curve(curve, reports)
    if compared is None:
        return False, "nothing to compare with the stored curve"
    where = f"{compared.deviation:+.0%} at most, before step {compared.worst_step:,}; the band is {curve.band:.0%}"
    return True, f"{'within' if compared.is_inside else 'OUTSIDE'} the stored band ({where})"


def loss_reports(run_directory: Path) -> list[tuple[int, float]]:
    """A run's reported steps and losses; none before the first report."""
    from mt3jax.training.run.run_log import METRICS_NAME, read_metrics

    path = run_directory / METRICS_NAME
    reports = read_metrics(path) if path.exists() else []
    return [(int(one["step"]), float(one[LOSS_NAME])) for one in reports if one.get(LOSS_NAME) is not None]


def _learning(config: TrainingConfig) -> tuple:
    """What determines the loss curve of a run."""
    before = None if config.before is None else _learning(config.before)
    settings = (config.model, config.init, config.seed, config.num_steps, config.batch, config.optimizer, config.loss)
    return (*settings, decisive(config.data), before)


def _write_audio(piece: Excerpt, path: Path) -> None:
    import soundfile

    with atomic_output(path) as temporary:
        soundfile.write(temporary, piece.samples, SAMPLE_RATE_HZ, subtype="PCM_16", format="WAV")


def _transcribe(model: Path, backend: str, audio: Path, target: Path, reporter: Reporter) -> list[Note]:
    started = time.perf_counter()
    transcriber = load_transcriber(str(model), backend, "auto", choose_decoding(None, None), reporter)
    try:
        result = transcriber.transcribe(audio)
    finally:
        transcriber.close()
    result.save(target)
    reporter.detail(f"Transcribed with {backend} in {time.perf_counter() - started:.1f} s.")
    return result.notes


def _scores(reference: list[Note], estimate: list[Note]) -> str:
    from mt3eval.matching.onset_score import onset_scores

    parts = [f"{name} {score.f1:.4f}" for name, score in onset_scores(reference, estimate).items()]
    return f"note F1 {', '.join(parts) or '-'} ({len(estimate)} estimated notes)"


def _agreement(transcriptions: list[list[Note]]) -> str:
    """All notes of the first against all notes of the others, to the bit."""
    first = set(transcriptions[0])
    differing = max(len(first ^ set(other)) for other in transcriptions[1:])
    return "the same notes" if not differing else f"{differing} notes differ"
