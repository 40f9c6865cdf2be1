"""Random tokens through the decoder of notes: any output of a network must become notes that can be written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from reliability.findings import Found
from reliability.kinds import Case, Kind, Reading, Source, digest_of
from reliability.mutations import Mutated

_WRITE_EVERY = 25  # streams: writing MIDI takes longer than everything else
_MOST_SEGMENTS, _MOST_TOKENS = 6, 200


class Tokens(Kind):
    """Streams of up to six segments in several vocabularies: uniform, made of events, or with ids that do not exist."""

    name = "tokens"
    command_every = 0

    @classmethod
    def build(cls, folder: Path) -> None:
        """Nothing: every stream is drawn."""

    def open(self) -> None:
        from mt3core.config.model import PRESETS, VocabularyConfig

        self.vocabularies = {name: preset.vocabulary for name, preset in PRESETS.items()}
        base = VocabularyConfig()
        self.vocabularies["velocities"] = dataclasses.replace(base, velocity_bins=127, program_granularity="midi_class")
        self.vocabularies["onsets"] = dataclasses.replace(base, onsets_only=True, ties=False)
        self.vocabularies["repeats"] = dataclasses.replace(base, shortest_repeat_seconds=0.05)
        self.vocabularies["fine"] = dataclasses.replace(base, steps_per_second=1000, max_shift_seconds=1)
        self.sources = [Source(name, np.ones(40, np.int64).tobytes()) for name in self.vocabularies]
        self._count = 0

    def case(self, rng: np.random.Generator) -> Case:
        from mt3core.notes.vocabulary import Vocabulary

        source = self.sources[int(rng.integers(0, len(self.sources)))]
        size = Vocabulary(self.vocabularies[source.name]).base_vocab_size
        count = int(rng.integers(0, _MOST_SEGMENTS * _MOST_TOKENS))
        form = str(rng.choice(["uniform", "few events", "outside", "repeated"]))
        if form == "uniform":
            stream = rng.integers(0, size, count)
        elif form == "few events":  # so that notes start, are tied and end
            stream = rng.choice(rng.integers(0, size, 12), count)
        elif form == "outside":
            stream = rng.choice([-(2**63), -1, 0, 1, 2, size, size + 1, 2**31, 2**62, 5, 700, 900], count)
        else:
            stream = np.tile(rng.integers(0, size, 5), count // 5 + 1)[:count]
        data = np.concatenate([rng.integers(0, 1 << 30, 2), stream]).astype(np.int64).tobytes()
        return Case(source, Mutated(data, f"{count} tokens, {form}", form, 0, False))

    def read(self, source: Source, data: bytes) -> Reading:
        from mt3core.notes.decoding import NoteDecoder
        from mt3core.notes.table import to_notes, validate_notes
        from mt3core.transcription import FORMATS, Transcription

        values = np.frombuffer(data, np.int64)
        (segments_seed, is_limited), tokens = values[:2].tolist(), values[2:]
        decoder = NoteDecoder(self.vocabularies[source.name])
        parts = np.array_split(tokens, 1 + segments_seed % _MOST_SEGMENTS)
        invalid = dropped = 0
        for number, part in enumerate(parts):
            start, is_last = number * 2.048, number == len(parts) - 1
            counts = decoder.add_segment(start, part, None if is_last or is_limited % 3 == 0 else start + 2.048)
            invalid, dropped = invalid + counts[0], dropped + counts[1]
            if min(counts) < 0 or sum(counts) > len(part):
                raise Found("traceback", f"{counts} invalid and dropped of {len(part)} tokens")
        notes = decoder.finish()
        validate_notes(notes)
        if len(notes) > len(tokens) or not (notes["offset"] > notes["onset"]).all():
            raise Found("traceback", f"{len(notes)} notes from {len(tokens)} tokens, or one without length")
        self._count += 1
        if self._count % _WRITE_EVERY == 0:
            transcription = Transcription(to_notes(notes), duration_seconds=20.0)
            for form in FORMATS:
                transcription.to_bytes(form)
        return Reading(len(notes), digest_of(notes))
