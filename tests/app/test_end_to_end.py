"""Audio in, notes out, with the published weights: equal to the original, and equal in both networks."""

import importlib

import numpy as np
import pytest

from mt3core.decoding import Decoding
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.midi_writing import midi_bytes
from mt3core.notes.table import note_table

pytestmark = [pytest.mark.integration, pytest.mark.slow]

BACKENDS = ["torch", "jax"]
SONGS = ["end_to_end_song", "end_to_end_example", "end_to_end_synthetic"]
RECORDINGS = [
    "piano_real_madmom_stereo_sample.flac",
    "drums_only_nmf_808.flac",
    "guitar_real_guitarset_00_bn1_129_eb_solo",
]


@pytest.fixture(scope="module")
def transcriber(published_arrays):
    """Makes the transcriber of a framework once, decoding as the original does."""
    made = {}

    def make(backend):
        if backend not in made:
            pytest.importorskip({"torch": "torch", "jax": "flax"}[backend])
            network = importlib.import_module(f"mt3{backend}")
            made[backend] = network.Transcriber(network.build_model(*published_arrays, "cpu"), batch_size=8)
        return made[backend]

    return make


def audio_of(golden, name):
    if name == "end_to_end_synthetic":
        return golden("spectrogram.npz")["synthetic_audio"]
    return golden(f"{name}.npz")["audio"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SONGS)
def test_tokens_and_notes_equal_the_original(golden, transcriber, backend, name):
    expected = golden(f"{name}.json")
    result = transcriber(backend).transcribe((audio_of(golden, name), expected["sample_rate"]))
    assert [segment.tokens for segment in result.segments] == [s["token_ids"] for s in expected["segments"]]
    starts = [segment.start_seconds for segment in result.segments]
    np.testing.assert_allclose(starts, [s["start_time"] for s in expected["segments"]], atol=1e-12)
    found = [(n.onset, n.offset, n.pitch, n.velocity, n.program, n.is_drum) for n in result.notes]
    # The original lists notes by their ends; ours are in order of onset, drum flag, program and pitch.
    original = sorted(
        (note[:6] for note in expected["notes"]), key=lambda note: (round(note[0], 6), note[5], note[4], note[2])
    )
    assert len(found) == len(original)
    np.testing.assert_allclose(np.array(found, float), np.array(original, float), rtol=0, atol=1e-6)
    assert sum(segment.invalid_events for segment in result.segments) == expected["invalid_events"]
    assert sum(segment.dropped_events for segment in result.segments) == expected["dropped_events"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_greedy_tokens_equal_the_original(golden, transcriber, backend):
    expected = golden("end_to_end_song.json")
    greedy = transcriber(backend)
    network = importlib.import_module(f"mt3{backend}")
    greedy = network.Transcriber(greedy.model, Decoding(method="greedy"), batch_size=8)
    result = greedy.transcribe((audio_of(golden, "end_to_end_song"), expected["sample_rate"]))
    for segment, original in zip(result.segments, expected["segments"], strict=True):
        assert segment.tokens == original.get("greedy_token_ids", original["token_ids"])


@pytest.mark.parametrize("recording", RECORDINGS)
def test_both_networks_write_the_same_midi(realdata, transcriber, recording):
    path = next(iter(sorted(p for p in realdata.glob(f"{recording}*") if p.suffix in {".flac", ".ogg", ".mp3"})))
    results = [transcriber(backend).transcribe(path) for backend in BACKENDS]
    assert results[0].notes
    assert [s.tokens for s in results[0].segments] == [s.tokens for s in results[1].segments]
    assert midi_bytes(results[0].notes) == midi_bytes(results[1].notes)


@pytest.mark.parametrize("backend", BACKENDS)
def test_saved_files_hold_the_notes(golden, transcriber, tmp_path, backend):
    expected = golden("end_to_end_example.json")
    samples = audio_of(golden, "end_to_end_example")
    result = transcriber(backend).transcribe((samples, expected["sample_rate"]))
    result.save(tmp_path / "example.mid")
    found = np.sort(read_midi(tmp_path / "example.mid"), order=["onset", "pitch"])
    written = np.sort(note_table(result.notes), order=["onset", "pitch"])
    np.testing.assert_allclose(found["onset"], written["onset"], atol=5.1e-4)
    np.testing.assert_array_equal(found["pitch"], written["pitch"])
