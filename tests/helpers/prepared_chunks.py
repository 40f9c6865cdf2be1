"""Prepared data made on the spot: shards and a manifest of recordings given as arrays."""

import zlib
from dataclasses import dataclass, field

import numpy as np

from mt3core.notes.table import note_table
from mt3data.prepare.chunks import SAMPLE_RATE_HZ, cut_chunks, encode_chunk
from mt3data.prepare.manifest import MANIFEST_NAME, SHARD_OPTIONS, array_record_module, write_manifest


@dataclass
class Recording:
    """A stem or a mix: int16 audio and rows of notes."""

    track: str
    audio: np.ndarray
    notes: object = ()
    stem: str = "mix"
    dataset: str = "slakh"
    split: str = "train"
    instrument_class: str = ""
    extra: dict = field(default_factory=dict)


def prepare(folder, recordings, chunks_per_shard=7):
    """Writes the recordings as `mt3 prepare` does, in their order; returns the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, records = [], []
    for recording in recordings:
        notes = note_table(recording.notes)
        for chunk in cut_chunks(recording.audio, notes):
            data = encode_chunk(chunk.audio, chunk.piece_notes, start_sample=chunk.start_sample)
            shard, index = divmod(len(records), chunks_per_shard)
            records.append(data)
            rows.append(
                {
                    "dataset": recording.dataset,
                    "split": recording.split,
                    "track": recording.track,
                    "stem": recording.stem,
                    "program": int(notes["program"][0]) if recording.stem != "mix" and len(notes) else -1,
                    "is_drum": bool(len(notes) and notes["is_drum"].all()),
                    "instrument_class": recording.instrument_class,
                    "shard": f"shards/{shard:05d}.array_record",
                    "index": index,
                    "start_seconds": chunk.start_seconds,
                    "duration_seconds": len(chunk.audio) / SAMPLE_RATE_HZ,
                    "num_notes": len(chunk.piece_notes),
                    "checksum": zlib.crc32(data),
                    "defects": "",
                    "licence": "",
                }
            )
    (folder / "shards").mkdir(exist_ok=True)
    for first in range(0, len(records), chunks_per_shard):
        path = folder / "shards" / f"{first // chunks_per_shard:05d}.array_record"
        writer = array_record_module().ArrayRecordWriter(str(path), SHARD_OPTIONS)
        for record in records[first : first + chunks_per_shard]:
            writer.write(record)
        writer.close()
    write_manifest(folder / MANIFEST_NAME, rows)
    return folder / MANIFEST_NAME


def random_notes(rng, seconds, count, program=0, is_drum=False):
    """Notes of one instrument that do not overlap at the same pitch, on no particular grid."""
    notes = []
    for pitch in rng.permutation(np.arange(30, 100))[: max(1, count // 6)].tolist():
        times = np.sort(rng.uniform(0, seconds, 12))
        times = times[np.append(True, np.diff(times) > 0.05)]
        spans = times[: len(times) // 2 * 2].reshape(-1, 2).tolist()
        notes += [[*span, pitch, int(rng.integers(1, 128)), program, is_drum] for span in spans]
    return sorted(notes)[:count] if count < len(notes) else sorted(notes)


def small_band(folder, num_tracks=5, seed=0, seconds=(9.0, 21.0)):
    """A SLAKH of tracks with four stems and their mix, and a MAESTRO of pieces without stems. Audio is noise."""
    rng = np.random.default_rng(seed)
    recordings = []
    for number in range(num_tracks):
        length = rng.uniform(*seconds)
        size = int(length * SAMPLE_RATE_HZ)
        stems = []
        for stem, (program, name) in enumerate([(0, "Piano"), (33, "Bass"), (48, "Strings"), (0, "Drums")]):
            audio = (rng.standard_normal(size) * 1000).astype(np.int16)
            notes = random_notes(rng, length, 60, program, name == "Drums")
            stems.append(Recording(f"Track{number:05d}", audio, notes, f"S{stem:02d}", instrument_class=name))
        total = np.sum([stem.audio for stem in stems], axis=0).astype(np.int16)
        every = sorted(note for stem in stems for note in stem.notes)
        recordings += [*stems, Recording(f"Track{number:05d}", total, every)]
    for number in range(num_tracks // 2):
        length = rng.uniform(*seconds)
        audio = (rng.standard_normal(int(length * SAMPLE_RATE_HZ)) * 1000).astype(np.int16)
        recordings.append(Recording(f"piece{number}", audio, random_notes(rng, length, 80), dataset="maestro"))
    return prepare(folder, recordings)
