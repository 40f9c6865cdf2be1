"""How well `--tempo auto` finds beats and bars in rendered music: makes the tables of docs/music.md.

    python benchmarks/beats.py [--midi FOLDER] [--model small] [--seconds 60] [--output FOLDER] [--markdown FILE]

- Composed: ten pieces of `mt3render.composition` (bass, guitar, flute, drums; 84 to 132 quarters a minute), each three
  times in a row. The tempo is known because we wrote it.
- With `--midi`, all MIDI files below that folder that have one tempo other than 120 (which is what files say that have
  none) from 75 to 190, and 4/4, 3/4 or no time signature; the first minute. Every second one, by name, was used to fit
  the weights of `mt3music/beat_level.py` and is a table of its own.
- Changing: the first composed piece with a sudden change of tempo, a long accelerando, and rubato.
- Long: three minutes at 97 quarters a minute. The MIDI file that is written is read by beat position and compared with
  the score, after one shift by whole beats.

Each piece is rendered by the engine that `mt3 demo` uses, transcribed, and given a tempo from audio and notes. Scores
are those of mir_eval.beat (70 ms; the first five seconds do not count). `bars` says whether the time signature and the
place of the first bar line are right too. Rendered audio and notes are kept in `--output`, so a second run is quick.
"""

from __future__ import annotations

import argparse
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import mir_eval
import numpy as np
import pretty_midi

from mt3core.audio.load import load_audio
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import Note, to_notes
from mt3core.transcription import Transcription
from mt3music import add_tempo
from mt3render.composition import EIGHTHS_PER_BAR, NUM_BARS, QUARTERS_PER_MINUTE, compose
from mt3render.playing import play_notes
from mt3render.variation import generator

RATE_HZ = 16_000
START_SECONDS = 0.5
WITHIN_QUARTERS = 1 / 8  # a 1/32 note


@dataclass(frozen=True)
class Piece:
    """Notes with the beats that they were written to; bars begin every `beats_per_bar` from the first beat."""

    name: str
    notes: list[Note]
    beats: np.ndarray
    beats_per_bar: int = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--midi", type=Path, help="folder of MIDI files with true tempos")
    parser.add_argument("--model", default="small")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each MIDI file")
    parser.add_argument("--output", type=Path, default=Path("beats"))
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    transcribe = transcriber(options.model, options.output)
    lines = table("composed", [composed(number, 3) for number in range(10)], transcribe)
    lines += table("changing", changing(), transcribe)
    if options.midi:
        pieces = list(of_midi(options.midi, options.seconds))
        lines += table("not used for fitting", pieces[1::2], transcribe)
        lines += table("used for fitting", pieces[::2], transcribe)
    lines += long_piece(transcribe)
    print("\n".join(lines))
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")


def composed(number: int, times: int) -> Piece:
    """A piece of the composition, several times in a row after half a second."""
    quarter = 60.0 / generator(0, "composition", str(number)).uniform(*QUARTERS_PER_MINUTE)
    length = quarter * NUM_BARS * EIGHTHS_PER_BAR / 2
    notes = [
        replace(
            note, onset=START_SECONDS + time * length + note.onset, offset=START_SECONDS + time * length + note.offset
        )
        for time in range(times)
        for note in compose(number)
    ]
    beats = START_SECONDS + quarter * np.arange(times * NUM_BARS * EIGHTHS_PER_BAR // 2)
    return Piece(f"composed {number}, {60 / quarter:.1f}", notes, beats)


def warped(piece: Piece, name: str, period_at: Callable[[np.ndarray], np.ndarray]) -> Piece:
    """The piece with beats of other lengths; `period_at` gives them by their place in the piece, from 0 to 1."""
    count = len(piece.beats)
    beats = START_SECONDS + np.concatenate([[0.0], np.cumsum(period_at(np.linspace(0, 1, count - 1)))])
    step = piece.beats[1] - piece.beats[0]

    def moved(seconds: float) -> float:
        place = (seconds - piece.beats[0]) / step
        base = min(max(int(place), 0), count - 2)
        return float(beats[base] + (place - base) * (beats[base + 1] - beats[base]))

    notes = [replace(note, onset=moved(note.onset), offset=moved(note.offset)) for note in piece.notes]
    return Piece(name, notes, beats)


def changing() -> list[Piece]:
    """Tempos that change."""
    piece = composed(0, 3)
    return [
        warped(piece, "100, then 125", lambda at: np.where(at < 0.5, 0.6, 0.48)),
        warped(piece, "120, then 80", lambda at: np.where(at < 0.5, 0.5, 0.75)),
        warped(piece, "accelerando 90 to 130", lambda at: 60 / (90 + 40 * at)),
        warped(piece, "ritardando 120 to 84", lambda at: 60 / (120 - 36 * at)),
        warped(piece, "rubato, 8 % in 8 bars", lambda at: 0.55 * (1 + 0.08 * np.sin(2 * np.pi * at * 72 / 32))),
        warped(piece, "rubato, 15 % in 4 bars", lambda at: 0.55 * (1 + 0.15 * np.sin(2 * np.pi * at * 72 / 16))),
    ]


def of_midi(folder: Path, seconds: float) -> Iterator[Piece]:
    """The beginnings of MIDI files of one known tempo."""
    for path in sorted(folder.rglob("*.mid")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pretty_midi's, on odd files
            midi = pretty_midi.PrettyMIDI(str(path))
        _, tempos = midi.get_tempo_changes()
        signatures = {(one.numerator, one.denominator) for one in midi.time_signature_changes}
        is_known = len(tempos) == 1 and round(tempos[0]) != 120 and 75 <= tempos[0] <= 190
        if not is_known or not signatures <= {(4, 4), (3, 4)} or len(signatures) > 1 or midi.get_end_time() <= seconds:
            continue
        notes = [
            replace(n, offset=min(n.offset, seconds)) for n in to_notes(read_midi(path)) if n.onset < seconds - 0.1
        ]
        beats = np.arange(0, seconds, 60 / tempos[0])
        size = min(signatures)[0] if signatures else 4
        yield Piece(f"{path.stem}, {tempos[0]:.0f}", notes, beats, size)


def transcriber(model: str, folder: Path) -> Callable[[Piece], tuple[Transcription, np.ndarray]]:
    """Renders and transcribes, once for each piece."""
    loaded: list = []

    def transcribe(piece: Piece) -> tuple[Transcription, np.ndarray]:
        name = "".join(letter if letter.isalnum() else "_" for letter in piece.name)
        audio, notes = folder / f"{name}.wav", folder / f"{name}.json"
        if not audio.exists():
            play_notes(piece.notes, audio)
        if not notes.exists():
            import mt3torch

            if not loaded:
                loaded.append(mt3torch.Transcriber.from_pretrained(model, device="cpu"))
            loaded[0].transcribe(audio).save(notes)
        return Transcription.load(notes), load_audio(audio, RATE_HZ)

    return transcribe


def table(title: str, pieces: Iterable[Piece], transcribe: Callable) -> list[str]:
    """One row a piece, and the mean."""
    lines = ["", f"| {title} | found | beat F1 | bars |", "|---|---|---|---|"]
    scores, right = [], 0
    for piece in pieces:
        result, samples = transcribe(piece)
        tempo = add_tempo(result, "auto", (samples, RATE_HZ)).tempo
        if tempo is None:
            scores.append(0.0)
            lines.append(f"| {piece.name} | none | 0.00 | |")
            continue
        found = np.array(tempo.beat_seconds)
        trimmed = [mir_eval.beat.trim_beats(one) for one in (piece.beats, found[found <= piece.beats[-1] + 0.1])]
        scores.append(mir_eval.beat.f_measure(*trimmed))
        bar_lines = found[tempo.first_downbeat :: tempo.time_signature.beats_per_bar]
        wanted = piece.beats[:: piece.beats_per_bar]
        near = np.abs(wanted[:, None] - bar_lines[None, :]).min(axis=1) < 0.07
        is_right = tempo.time_signature.numerator == piece.beats_per_bar and near.mean() > 0.8
        right += is_right
        about = f"{tempo.beats_per_minute:.1f}{'' if tempo.is_steady else ' on average'}, {tempo.time_signature}"
        lines.append(f"| {piece.name} | {about} | {scores[-1]:.2f} | {'right' if is_right else 'wrong'} |")
        print(lines[-1], flush=True)
    good = sum(score >= 0.8 for score in scores)
    lines.append(f"| mean of {len(scores)} ({good} at least .8) | | {np.mean(scores):.3f} | {right} right |")
    return lines


def long_piece(transcribe: Callable) -> list[str]:
    """Three minutes at 97: where the written MIDI file has the notes, in beats, against the score."""
    given = composed(0, 12)
    quarter = 60 / 97
    piece = warped(given, "long, 97", lambda at: np.full(len(at), quarter))
    piece = replace(piece, notes=[note for note in piece.notes if note.onset < 180])
    result, samples = transcribe(piece)
    result = add_tempo(result, "auto", (samples, RATE_HZ))
    midi = pretty_midi.PrettyMIDI(io.BytesIO(result.to_bytes("mid")))
    found = [(note.start, note.pitch, is_drum) for i in midi.instruments for is_drum in [i.is_drum] for note in i.notes]
    positions = np.array([midi.time_to_tick(start) / midi.resolution for start, *_ in found])
    keys = np.array([pitch + 128 * is_drum for _, pitch, is_drum in found])
    starts = np.array([start for start, *_ in found])
    differences, places = [], []
    used = np.zeros(len(found), bool)
    for note in piece.notes:
        away = np.where((keys == note.pitch + 128 * note.is_drum) & ~used, np.abs(starts - note.onset), np.inf)
        nearest = int(away.argmin())
        if away[nearest] <= 0.05:
            used[nearest] = True
            place = (note.onset - piece.beats[0]) / quarter
            # The score's own place: compositions are on a grid of eighths.
            differences.append(positions[nearest] - round(place * 2) / 2)
            places.append(place)
    shift = round(float(np.median(differences)))
    off = np.array(differences) - shift
    slope = np.polyfit(places, off, 1)[0] * len(piece.beats)
    found_tempo = result.tempo.in_words if result.tempo else "no tempo."
    share = 100 * np.mean(np.abs(off) <= WITHIN_QUARTERS)
    return [
        "",
        f"Three minutes at 97: {found_tempo} {len(off)} of {len(piece.notes)} onsets matched; shifted by {shift}, "
        f"{share:.1f} % of them are within a 1/32 of the score (median {1000 * np.median(np.abs(off)):.0f} thousandths "
        f"of a quarter); drift over the piece {1000 * slope:+.0f} thousandths.",
    ]


if __name__ == "__main__":
    main()
