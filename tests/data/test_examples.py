"""Examples of prepared chunks: their tokens against the original's, their notes read back, their audio."""

import itertools

import numpy as np
import pytest
from golden_codec import ENTRIES, config_of
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared_chunks import Recording, prepare, random_notes

from mt3core.config.model import ISMIR2021, MT3, ModelConfig, NetworkConfig, VocabularyConfig
from mt3core.errors import UsageError
from mt3core.notes.decoding import NoteDecoder
from mt3core.notes.mixing import mix_events, remove_redundant_changes
from mt3core.notes.table import note_table
from mt3core.notes.vocabulary import Vocabulary, bin_to_velocity, velocity_to_bin
from mt3core.segments import segments
from mt3core.spectrogram import log_mel_segments
from mt3data.examples.chunk_table import ChunkTable
from mt3data.examples.example_streams import EvaluationStream, waveform
from mt3data.examples.examples import ExampleConfig, ExampleMaker, fit_tokens
from mt3data.prepare.chunks import SAMPLE_RATE_HZ
from mt3data.prepare.manifest import read_manifest

pytestmark = pytest.mark.unit

NOISE = np.random.default_rng(0).integers(-9000, 9000, 30 * SAMPLE_RATE_HZ).astype(np.int16)


def maker_of(manifest_path, **settings):
    return ExampleMaker(ExampleConfig(**settings), ChunkTable.from_manifest(read_manifest(manifest_path)))


@pytest.mark.parametrize("name", ENTRIES)
def test_the_segments_of_a_prepared_piece_equal_the_original(golden, tmp_path, name):
    """From the notes through chunks, shards and manifest to the batch."""
    entry = golden("codec_sequences.json")[name]
    notes = note_table(entry["input_notes"])
    path = prepare(tmp_path, [Recording("piece", NOISE[: entry["num_samples"]], notes)])
    model = ModelConfig(network=NetworkConfig(input_frames=entry["segment_frames"]), vocabulary=config_of(entry))
    stream = EvaluationStream(maker_of(path, model=model, stale_ties=True), np.arange(len(read_manifest(path))))
    assert stream.num_examples == len(entry["segments"])
    batch = stream.batch(range(stream.num_examples))
    for number, expected in enumerate(entry["segments"]):
        assert batch["first_frame"][number] == expected["first_frame"]
        assert batch["num_frames"][number] == expected["num_frames"]
        assert batch["start_seconds"][number] == expected["start_time"]
        count = batch["num_tokens"][number]
        assert batch["targets"][number, :count].tolist() == expected["token_ids"]
        assert not batch["targets"][number, count:].any()


def test_a_mix_equals_the_merged_events_of_the_original(golden, tmp_path):
    """Two pieces of the golden file at other places of each, merged with every tie section left in."""
    entries = [golden("codec_sequences.json")[name] for name in ("multi_mt3_trimmed", "multi_mt3_midi_class")]
    recordings = [
        Recording(f"piece{number}", NOISE[: entry["num_samples"]], note_table(entry["input_notes"]))
        for number, entry in enumerate(entries)
    ]
    maker = maker_of(prepare(tmp_path, recordings), one_tie_section=False)
    first, second = entries[0]["segments"][1], entries[0]["segments"][3]
    streams = [np.array(segment["event_ids_before_redundancy_removal"]) for segment in (first, second)]
    merged = remove_redundant_changes(mix_events(streams, Vocabulary()), Vocabulary())
    example = maker.make([0, 2], [256, 768], same_place=False)
    assert example.tokens.tolist() == [*(merged + 3).tolist(), 1]


def expected_segment(notes, start_step, end_step, config):
    """Notes at the segment's start as (program, pitch), those that begin in it and those that end in it, in steps."""
    tied, begun, ended = [], [], []
    for onset, offset, pitch, velocity, program, is_drum in notes.tolist():
        on, off = round(onset * 100), round(offset * 100)
        loudness = bin_to_velocity(int(velocity_to_bin(velocity, config.velocity_bins)), config.velocity_bins)
        if start_step <= on < end_step:
            begun.append((on - start_step, pitch, loudness, 0 if is_drum else program, is_drum))
        if not is_drum:
            if on < start_step <= off:
                tied.append((program, pitch))
            if start_step <= off < end_step:
                ended.append((max(off, on + 1) - start_step, pitch, program))  # no decoded note is shorter
    return sorted(tied), sorted(begun), sorted(ended)


def decoded_segment(tokens, tied, config):
    """The same read back from tokens, the notes at the start having been begun one second before."""
    decoder = NoteDecoder(config)
    vocabulary = decoder.vocabulary
    before = [vocabulary.event_id("tie", 0), vocabulary.event_id("velocity", 1)]
    for program, pitch in tied:
        before += [vocabulary.event_id("program", program), vocabulary.event_id("pitch", pitch)]
    decoder.add_events(0.0, np.array(before), None)
    assert decoder.add_segment(1.0, tokens, None) == (0, 0)
    num_sounding = len(decoder.sounding)
    rows = [(round(on * 100) - 100, round(off * 100) - 100, *rest) for on, off, *rest in decoder.finish().tolist()]
    begun = [(on, pitch, *rest) for on, _, pitch, *rest in rows if on >= 0]
    # In the order in which they ended, those that sound on at last.
    ended = [(off, pitch, program) for _, off, pitch, _, program, drum in rows[: len(rows) - num_sounding] if not drum]
    return sorted(begun), sorted(ended)


@pytest.fixture(scope="module")
def random_tracks(tmp_path_factory):
    """Twelve tracks of an instrument each: their manifest, and their notes by name."""
    rng = np.random.default_rng(3)
    recordings = []
    for number in range(12):
        seconds = rng.uniform(1, 29)
        notes = random_notes(rng, seconds, int(rng.integers(1, 150)), number * 8, number % 4 == 3)
        recordings.append(Recording(f"track{number}", NOISE[: int(seconds * SAMPLE_RATE_HZ)], notes))
    path = prepare(tmp_path_factory.mktemp("tracks"), recordings)
    notes = {recording.track: note_table(recording.notes) for recording in recordings}
    return lambda: (read_manifest(path), notes)  # Hypothesis shows arguments; a function is shown by its name


@given(
    st.lists(st.integers(0, 11), min_size=1, max_size=4, unique=True),
    st.lists(st.floats(0, 1), min_size=8, max_size=8),
    st.sampled_from([1, 127]),
)
@settings(max_examples=100)
def test_an_example_read_back_gives_the_notes_of_its_segments(random_tracks, numbers, places, velocity_bins):
    """Of one chunk or of a mix of chunks of different instruments, cut at any frame."""
    manifest, notes = random_tracks()
    vocabulary = VocabularyConfig(velocity_bins=velocity_bins)
    config = ExampleConfig(model=ModelConfig(vocabulary=vocabulary))
    maker = ExampleMaker(config, ChunkTable.from_manifest(manifest))
    rows, frames, tied, begun, ended = [], [], [], [], []
    for number, which, where in zip(numbers, places[:4], places[4:], strict=False):
        track = f"track{number}"
        chunks = np.flatnonzero(manifest["track"] == track).tolist()
        row = chunks[round(which * (len(chunks) - 1))]
        frame = round(where * max(maker.num_chunk_frames(row) - 256, 0))
        first = round(manifest["start_seconds"][row] * 125) + frame
        reaches_end = maker.table.ends_recording[row] and frame + 256 >= maker.num_chunk_frames(row)
        end_step = 10**9 if reaches_end else (first + 256) * 100 // 125
        parts = expected_segment(notes[track], first * 100 // 125, end_step, vocabulary)
        for all_parts, part in zip((tied, begun, ended), parts, strict=True):
            all_parts += part
        rows.append(row)
        frames.append(frame)
    example = maker.make(rows, frames, same_place=False)
    assert decoded_segment(example.tokens, sorted(tied), vocabulary) == (sorted(begun), sorted(ended))


def test_the_stems_of_a_place_are_encoded_as_one_piece(tmp_path):
    rng = np.random.default_rng(1)
    stems = [random_notes(rng, 12, 60, program) for program in (0, 24, 48)]
    audio = [NOISE[start : start + 12 * SAMPLE_RATE_HZ] // 4 for start in (0, 10, 20)]
    together = Recording("t", np.sum(audio, axis=0).astype(np.int16), sorted(itertools.chain(*stems)))
    parts = [Recording("t", a, n, f"S{i}") for i, (a, n) in enumerate(zip(audio, stems, strict=True))]
    maker = maker_of(prepare(tmp_path, [together, *parts]))
    whole, summed = maker.make([0], [100], True), maker.make([2, 4, 6], [100] * 3, True)
    assert summed.tokens.tolist() == whole.tokens.tolist()
    np.testing.assert_allclose(summed.samples, whole.samples, atol=1)
    assert whole.samples.tolist() == np.sum(audio, axis=0)[12800 : 12800 + 32768].tolist()


def test_stems_of_the_same_instrument_are_trimmed_as_a_mix_is(tmp_path):
    audio = NOISE[: 4 * SAMPLE_RATE_HZ]
    stems = [[[0.5, 1.5, 60, 90, 24, False]], [[1.0, 1.8, 60, 90, 24, False]]]
    trimmed = [[0.5, 1.0, 60, 90, 24, False], [1.0, 1.8, 60, 90, 24, False]]
    parts = [Recording("t", audio, notes, f"S{number}") for number, notes in enumerate(stems)]
    maker = maker_of(prepare(tmp_path, [Recording("t", audio, trimmed), *parts]))
    assert maker.make([1, 2], [0, 0], True).tokens.tolist() == maker.make([0], [0], True).tokens.tolist()


def test_audio_and_valid_frames_at_the_end_of_a_piece(tmp_path):
    samples = 131072 + 32768 + 1000
    path = prepare(tmp_path, [Recording("a", NOISE[:samples]), Recording("b", NOISE[:131072], split="test")])
    maker = maker_of(path)
    stream = EvaluationStream(maker, np.array([0, 1]))
    batch = stream.batch(range(stream.num_examples + 2))
    expected = segments(samples, MT3)
    assert batch["num_frames"].tolist() == [segment.num_frames for segment in expected] + [0, 0]
    assert batch["index"].tolist() == [0, 1, 2, 3, 4, 5, -1, -1]
    assert batch["audio"][5, :1000].tolist() == NOISE[samples - 1000 : samples].tolist()
    assert not batch["audio"][5, 1000:].any()
    # The original adds a frame of zeros to a piece that ends with a frame: here it is a segment of its own.
    exact = EvaluationStream(maker, np.array([2]))
    assert exact.batch(range(exact.num_examples))["num_frames"].tolist() == [256, 256, 256, 256, 1]


def test_host_log_mel_is_that_of_the_recording(tmp_path):
    samples = 131072 + 5000
    path = prepare(tmp_path, [Recording("a", NOISE[:samples])])
    stream = EvaluationStream(maker_of(path, audio="log_mel"), np.array([0, 1]))
    batch = stream.batch(range(3, 5))
    recording = NOISE[:samples].astype(np.float32) / 32768
    expected = log_mel_segments(recording, segments(samples, MT3)[3:5], MT3)
    np.testing.assert_array_equal(batch["log_mel"], expected)
    assert "audio" not in batch


def test_float_audio_is_int16_audio_over_full_scale(tmp_path):
    path = prepare(tmp_path, [Recording("a", NOISE[:50000])])
    whole, real = (
        EvaluationStream(maker_of(path, audio=form), np.array([0])).batch([0]) for form in ("int16", "float32")
    )
    assert real["audio"].dtype == np.float32
    np.testing.assert_array_equal(waveform(whole["audio"]), real["audio"])
    assert waveform(real["audio"]) is real["audio"]


def test_a_long_target_keeps_whole_events_and_has_no_end():
    vocabulary = Vocabulary()
    tie, shift, program, on, pitch, drum = (
        vocabulary.event_id(kind, value) + 3
        for kind, value in (("tie", 0), ("shift", 5), ("program", 3), ("velocity", 1), ("pitch", 60), ("drum", 36))
    )
    tokens = np.array([tie, shift, program, on, pitch, shift + 5, on, drum, 1])
    for limit, kept in ((9, 9), (8, 8), (7, 5), (5, 5), (4, 1), (1, 1)):
        assert fit_tokens(tokens, limit, vocabulary).tolist() == tokens[:kept].tolist()
    assert fit_tokens(tokens[1:], 3, vocabulary).tolist() == []


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"audio": "mp3"}, "example.audio is 'mp3'"),
        ({"too_long": "ignore"}, "example.too_long is 'ignore'"),
        ({"load_tokens": 1}, "example.load_tokens is 1"),
        ({"model": ModelConfig(network=NetworkConfig(input_frames=300))}, "Segments of 38400 samples .* do not divide"),
    ],
)
def test_impossible_settings_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        ExampleConfig(**settings)
    assert caught.value.next_step


def test_the_presets_fit_the_chunks():
    assert ExampleConfig(model=ISMIR2021).model is ISMIR2021
