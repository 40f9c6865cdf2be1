"""Chunks, their records, and the manifest over shards."""

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from mt3core.errors import DatasetError
from mt3core.notes.table import NOTE_DTYPE, note_table
from mt3data.prepare.chunks import (
    CHUNK_SAMPLES,
    SAMPLE_RATE_HZ,
    cut_chunks,
    decode_chunk,
    decode_segment,
    encode_chunk,
    to_int16,
)
from mt3data.prepare.manifest import (
    COLUMNS,
    SHARD_OPTIONS,
    Manifest,
    array_record_module,
    check_shards,
    read_manifest,
    shard_problems,
    write_manifest,
)

pytestmark = pytest.mark.unit
CHUNK_SECONDS = CHUNK_SAMPLES / SAMPLE_RATE_HZ

notes_strategy = st.lists(
    st.tuples(
        st.floats(0, 40), st.floats(0, 5), st.integers(0, 127), st.integers(1, 127), st.integers(0, 127), st.booleans()
    ),
    max_size=30,
).map(lambda rows: note_table([(onset, onset + length, *rest) for onset, length, *rest in rows]))


def random_audio(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-(1 << 15), 1 << 15, samples).astype(np.int16)


@given(notes=notes_strategy, samples=st.integers(1, 3000), flac=st.booleans(), start=st.integers(0, 10**6))
def test_a_record_gives_its_chunk_back_to_the_bit(notes, samples, flac, start):
    audio = random_audio(samples)
    data = encode_chunk(audio, notes, flac=flac, start_sample=start)
    chunk = decode_chunk(data)
    assert np.array_equal(chunk.audio, audio)
    assert chunk.piece_notes.tobytes() == notes.tobytes()
    assert chunk.start_sample == start
    assert encode_chunk(audio, notes, flac=flac, start_sample=start) == data


@given(
    notes=notes_strategy,
    flac=st.booleans(),
    start=st.integers(0, 6000),
    length=st.integers(1, 6000),
    chunk_start=st.sampled_from([0, CHUNK_SAMPLES, 3 * CHUNK_SAMPLES]),
)
def test_a_segment_is_a_part_of_the_chunk_with_zeros_after_it(notes, flac, start, length, chunk_start):
    audio = random_audio(4000)
    segment = decode_segment(encode_chunk(audio, notes, flac, chunk_start), start, length)
    expected = np.concatenate([audio, np.zeros(12_000, np.int16)])[start : start + length]
    assert np.array_equal(segment.audio, expected)
    assert segment.start_sample == chunk_start + start
    assert segment.piece_notes.tobytes() == notes.tobytes()


def test_a_raw_segment_is_a_view_of_the_record():
    data = encode_chunk(random_audio(CHUNK_SAMPLES), note_table([]))
    segment = decode_segment(data, 1000, 32_768)
    assert np.shares_memory(segment.audio, np.frombuffer(data, np.uint8))


@given(notes=notes_strategy, samples=st.integers(1, 3 * CHUNK_SAMPLES))
def test_chunks_follow_each_other_and_hold_every_note_that_sounds_in_them(notes, samples):
    audio = random_audio(samples)
    chunks = cut_chunks(audio, notes)
    assert np.array_equal(np.concatenate([chunk.audio for chunk in chunks]), audio)
    assert [chunk.start_sample for chunk in chunks] == list(range(0, samples, CHUNK_SAMPLES))
    for chunk in chunks:
        end = chunk.start_seconds + len(chunk.audio) / SAMPLE_RATE_HZ
        there = set(chunk.piece_notes.tolist())
        for note in notes.tolist():
            sounds = note[0] < end and (note[1] > chunk.start_seconds or note[0] >= chunk.start_seconds)
            if sounds:
                assert note in there
            elif note in there and not is_near(note, chunk.start_seconds, end):
                assert any(held[2::2] == note[2::2] and held[1] > chunk.start_seconds - 0.02 for held in there)


def is_near(note, start_seconds, end_seconds):
    return note[0] < end_seconds + 0.02 and note[1] > start_seconds - 0.02


def test_with_a_held_note_come_those_of_its_pitch_that_end_it_for_the_codec():
    held = (1.0, 12.0, 60, 90, 5, False)
    within, other_program = (3.0, 4.0, 60, 90, 5, False), (3.0, 4.0, 60, 90, 6, False)
    before, after = (0.1, 0.5, 60, 90, 5, False), (20.0, 21.0, 60, 90, 5, False)
    notes = note_table([before, held, within, other_program, after])
    second = cut_chunks(random_audio(3 * CHUNK_SAMPLES), notes)[1]
    assert second.piece_notes.tolist() == [held, within]


def test_times_count_from_the_start_of_the_chunk_or_of_the_piece():
    notes = note_table([(8.0, 9.0, 60, 90, 0, False)])
    _, second = cut_chunks(random_audio(2 * CHUNK_SAMPLES), notes)
    assert second.piece_notes["onset"].tolist() == [8.0]
    assert second.piece_notes["offset"].tolist() == [9.0]
    assert second.piece_notes["onset"].tolist() == [8.0]


def test_a_note_that_rounds_into_the_next_chunk_is_in_both():
    notes = note_table([(1.0, CHUNK_SECONDS - 0.001, 60, 90, 0, False), (1.0, CHUNK_SECONDS - 0.5, 61, 90, 0, False)])
    _, second = cut_chunks(random_audio(2 * CHUNK_SAMPLES), notes)
    assert second.piece_notes["pitch"].tolist() == [60]


def test_int16_files_come_back_unchanged_and_louder_ones_are_counted(tmp_path):
    audio = random_audio(5000)
    soundfile.write(tmp_path / "a.wav", audio, SAMPLE_RATE_HZ, subtype="PCM_16")
    from mt3core.audio.load import load_audio

    again, num_clipped = to_int16(load_audio(tmp_path / "a.wav"))
    assert np.array_equal(again, audio)
    assert num_clipped == 0
    loud, num_clipped = to_int16(np.array([1.0, -1.0, 1.1, -1.2, 0.5], np.float32))
    assert loud.tolist() == [32767, -32768, 32767, -32768, 16384]
    assert num_clipped == 2


def test_flac_records_are_smaller():
    tone = (8000 * np.sin(np.arange(CHUNK_SAMPLES) / 20)).astype(np.int16)
    raw, packed = (len(encode_chunk(tone, note_table([]), flac=flac)) for flac in (False, True))
    assert packed < 0.7 * raw


@pytest.mark.parametrize("flac", [False, True])
def test_damage_is_noticed_wherever_it_is(flac):
    notes = note_table([(0.1, 0.2, 60, 90, 0, False)])
    data = encode_chunk(random_audio(300), notes, flac=flac)
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x10
        with pytest.raises(DatasetError, match=r"damaged|version"):
            decode_chunk(bytes(broken))
    for length in (0, 10, 31, 32, len(data) - 1):
        with pytest.raises(DatasetError, match="damaged"):
            decode_segment(data[:length], 0, 100)


def test_records_of_a_newer_release_are_refused():
    data = bytearray(encode_chunk(random_audio(10), note_table([])))
    data[4] = 9
    with pytest.raises(DatasetError, match="has version 9"):
        decode_chunk(bytes(data))


def test_chunks_too_long_or_empty_are_the_callers_mistake():
    for samples in (0, CHUNK_SAMPLES + 1):
        with pytest.raises(ValueError, match="samples"):
            encode_chunk(random_audio(samples), np.empty(0, NOTE_DTYPE))


def row(index: int, shard: str = "folder/train-00000.array_record", **others) -> dict:
    empty = {"string": "", "bool": False, "double": 0.0}
    return {name: empty.get(kind, 0) for name, kind in COLUMNS.items()} | {"shard": shard, "index": index} | others


def test_a_manifest_gives_its_rows_back_and_the_same_bytes_each_time(tmp_path):
    rows = [row(i, track=f"étude {i // 2}", program=i, start_seconds=i * 8.192, checksum=2**32 - 1) for i in range(5)]
    for name in ("a.parquet", "b.parquet"):
        write_manifest(tmp_path / name, rows)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    manifest = read_manifest(tmp_path / "a.parquet")
    assert len(manifest) == 5
    assert manifest["track"].tolist() == ["étude 0", "étude 0", "étude 1", "étude 1", "étude 2"]
    assert manifest["track"][0] is manifest["track"][1]
    assert manifest["start_seconds"].tolist() == [i * 8.192 for i in range(5)]
    assert manifest["checksum"].dtype == np.uint32
    assert manifest.select(manifest["program"] > 2)["index"].tolist() == [3, 4]
    assert manifest.shards() == ["folder/train-00000.array_record"]


def test_an_empty_manifest_is_one_too(tmp_path):
    write_manifest(tmp_path / "chunk_manifest.parquet", [])
    manifest = read_manifest(tmp_path)
    assert len(manifest) == 0
    assert manifest.shards() == []
    check_shards(manifest)


def test_manifests_that_cannot_be_used_are_refused_in_one_sentence(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as parquet

    path = tmp_path / "m.parquet"

    def refused(sentence):
        with pytest.raises(DatasetError, match=sentence) as caught:
            read_manifest(path)
        assert caught.value.next_step

    refused("There is no manifest")
    path.write_bytes(b"")
    refused("cannot be read as a manifest")
    write_manifest(path, [row(0)])
    path.write_bytes(path.read_bytes()[:-20])
    refused("cannot be read as a manifest")
    parquet.write_table(pa.table({"a": [1]}), path)
    refused("not a manifest of prepared chunks")
    write_manifest(path, [row(0)])
    table = parquet.read_table(path)
    parquet.write_table(table.drop_columns(["licence", "index"]), path)
    refused("has no column index, licence")
    parquet.write_table(table.replace_schema_metadata({"mt3_manifest": '{"version": 7}'}), path)
    refused("of version 7")
    parquet.write_table(table.set_column(8, "index", pa.array([1.5])).select(list(COLUMNS)), path)
    refused("column index must be int32")


def test_missing_cut_and_short_shards_are_named(tmp_path):
    module = array_record_module()
    for name, count in (("whole", 3), ("cut", 3), ("short", 2)):
        writer = module.ArrayRecordWriter(str(tmp_path / name), SHARD_OPTIONS)
        for _ in range(count):
            writer.write(encode_chunk(random_audio(50_000), note_table([])))
        writer.close()
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:200_000])
    rows = [row(i, shard) for shard in ("whole", "cut", "gone", "short") for i in range(3)]
    write_manifest(tmp_path / "m.parquet", rows)
    manifest = read_manifest(tmp_path / "m.parquet")
    problems = shard_problems(manifest)
    assert len(problems) == 3
    assert "cut is truncated or damaged" in problems[0]
    assert "gone is missing" in problems[1]
    assert "short has 2 records instead of 3" in problems[2]
    with pytest.raises(DatasetError, match="So are 2 more"):
        check_shards(manifest)
    check_shards(Manifest(manifest.path, {name: column[:3] for name, column in manifest.columns.items()}))
