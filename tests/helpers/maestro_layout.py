"""A small data set in MAESTRO's layout: its table, and recordings of tones with MIDI that has a pedal."""

from small_datasets import tone
from tiny_datasets import midi_of, write_audio


def write_maestro(root, splits, seconds=3.0):
    """Pieces of a note every half second, 0.4 s long, the first held by the pedal until 0.9 s; `splits` by name."""
    lines = ["canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration"]
    for number, (name, split) in enumerate(splits.items()):
        notes = [(start / 2, start / 2 + 0.4, 60 + number + start) for start in range(int(seconds * 2 - 1))]
        midi_of(notes, root / f"2004/{name}.midi", controls=[(0.1, 127), (0.9, 0)])
        write_audio(root / f"2004/{name}.wav", tone(seconds, seed=number))
        lines.append(f"Nobody,Piece {name},{split},2004,2004/{name}.midi,2004/{name}.wav,{seconds}")
    (root / "maestro-v3.0.0.csv").write_text("\n".join(lines) + "\n")
    return root
