"""What the pipeline keeps of a manifest, and reading records by many threads and in other processes."""

import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prepared_chunks import Recording, prepare, small_band

from mt3core.errors import DatasetError
from mt3data.examples import chunk_table
from mt3data.examples.chunk_table import ChunkTable, ShardReader
from mt3data.examples.process_memory import keep_freed_memory
from mt3data.prepare.chunks import CHUNK_SAMPLES, decode_chunk
from mt3data.prepare.manifest import read_manifest

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return read_manifest(small_band(tmp_path_factory.mktemp("band"), num_tracks=3))


def test_the_table_says_where_recordings_begin_and_end(tmp_path):
    recordings = [
        Recording("b", np.zeros(CHUNK_SAMPLES + 500, np.int16), [[0.5, 9.0, 60, 80, 0, False]]),
        Recording("a", np.zeros(700, np.int16), stem="S00"),
        Recording("a", np.zeros(2 * CHUNK_SAMPLES, np.int16)),
        Recording("a", np.zeros(9000, np.int16), split="test"),
    ]
    table = ChunkTable.from_manifest(read_manifest(prepare(tmp_path, recordings)))
    assert len(table) == 6
    assert table.num_samples.tolist() == [CHUNK_SAMPLES, 500, 700, CHUNK_SAMPLES, CHUNK_SAMPLES, 9000]
    assert table.start_sample.tolist() == [0, CHUNK_SAMPLES, 0, 0, CHUNK_SAMPLES, 0]
    assert table.ends_recording.tolist() == [False, True, True, False, True, True]
    assert table.has_notes.tolist() == [True, True, False, False, False, False]
    assert table.is_mix.tolist() == [True, True, False, True, True, True]
    first, second, third, fourth, fifth, sixth = table.piece.tolist()
    assert first == second
    assert third == fourth == fifth
    assert len({first, third, sixth}) == 3


def test_threads_and_copies_of_a_reader_read_the_same(manifest, monkeypatch):
    """With fewer open shards than there are, so that they are opened and given up all the time."""
    monkeypatch.setattr(chunk_table, "MAX_OPEN_SHARDS", 2)
    table = ChunkTable.from_manifest(manifest)
    places = list(zip(table.shard.tolist(), table.record.tolist(), strict=True))
    assert len(set(table.shard.tolist())) > 4
    reader = ShardReader(table.shard_paths)
    expected = [reader.read(*place) for place in places]
    for data, start in zip(expected, table.start_sample.tolist(), strict=True):
        assert decode_chunk(data).start_sample == start
    copy = pickle.loads(pickle.dumps(reader))
    order = np.random.default_rng(0).permutation(np.tile(np.arange(len(places)), 5)).tolist()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda index: copy.read(*places[index]) == expected[index], order))
    assert all(found)
    assert copy._reader.cache_info().currsize == 2


def test_a_record_that_is_not_there_names_its_shard(manifest):
    reader = ShardReader(ChunkTable.from_manifest(manifest).shard_paths)
    with pytest.raises(DatasetError, match=r"Record 999 of the shard .*00000.array_record cannot be read") as caught:
        reader.read(0, 999)
    assert "mt3 prepare" in caught.value.next_step


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_freed_memory_is_kept_where_glibc_is():
    assert keep_freed_memory() is keep_freed_memory() is True
