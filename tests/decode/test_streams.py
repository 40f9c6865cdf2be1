"""Notes come while decoding goes on, in order, and they are those of the whole."""

import itertools
import threading

import numpy as np
import pytest
from inventive import Inventive
from small_models import RATE_HZ
from wild_twins import MAX_TOKENS, wild_arrays

from mt3core.config.model import MT3
from mt3core.decoding import Decoding, Generated
from mt3core.errors import AudioError, UsageError
from mt3core.notes.choosing import NoteChoice
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3decode.arriving import ArrivingSegments, mono_blocks
from mt3decode.transcriber import BaseTranscriber

pytestmark = pytest.mark.unit
FIRST = {kind: span[0] + NUM_SPECIAL_TOKENS for kind, span in Vocabulary(MT3.vocabulary).event_ranges.items()}
SEGMENT_SECONDS = MT3.segment_samples / RATE_HZ


class Scripted(BaseTranscriber):
    """Writes random events, the same for a segment of the same number, and gives segments in a mixed order."""

    def __init__(self, decoding=None, order=4):
        super().__init__(MT3, decoding)
        self.order = order
        self.given = 0

    def generate_stream(self, log_mels, last_steps=None):
        numbers = enumerate(log_mels)
        while group := [number for number, _ in itertools.islice(numbers, self.order)]:
            for number in reversed(group):
                self.given += 1
                yield number, Generated(self.tokens(number), 0.0, np.full(80, -0.1, np.float32))

    def tokens(self, number):
        return Inventive().tokens(np.random.default_rng(number))


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.05, int(seconds * RATE_HZ)).astype(np.float32)


@pytest.mark.parametrize("order", [1, 4])
@pytest.mark.parametrize("times", [{}, {"start_seconds": 3.3, "end_seconds": 17.2}])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(overlap=2)])
def test_a_stream_is_the_whole(order, times, decoding):
    samples = noise(40)
    expected = Scripted(decoding, order).transcribe((samples, RATE_HZ), **times)
    assert len(expected.notes) > 15
    stream = Scripted(decoding, order).stream((samples, RATE_HZ), **times)
    assert list(stream) == expected.notes
    assert stream.result == expected
    assert stream.final_seconds == expected.duration_seconds


@pytest.mark.parametrize(
    "choice", [NoteChoice(min_note_seconds=0.05, pitch_range=(60, 63)), NoteChoice(merge_gap_seconds=0.2)]
)
def test_chosen_notes(choice):
    samples = noise(40)
    expected = Scripted().transcribe((samples, RATE_HZ), choice=choice).notes
    assert 5 < len(expected) < len(Scripted().transcribe((samples, RATE_HZ)).notes)
    assert list(Scripted().stream((samples, RATE_HZ), choice=choice)) == expected
    pieces = np.array_split(samples, 7)
    assert list(Scripted().stream(iter(pieces), RATE_HZ, choice=choice)) == expected


def test_all_notes_before_final_seconds_have_been_given():
    """Whoever is interrupted can say how far the notes go."""
    expected = Scripted().transcribe((noise(40), RATE_HZ)).notes
    stream = Scripted().stream((noise(40), RATE_HZ))
    given = []
    for note in stream:
        given.append(note)
        before = [one for one in expected if one.onset < stream.final_seconds]
        assert before == given[: len(before)]
        if len(given) == 30:
            stream.close()
    assert len(given) == 30
    assert all(one in given for one in expected if one.onset < stream.final_seconds)


def test_notes_come_before_the_rest_is_decoded_and_final_seconds_grow():
    transcriber = Scripted(order=1)
    with transcriber.stream((noise(60), RATE_HZ)) as stream:
        given, seconds = [], []
        for note in stream:
            given.append(transcriber.given)
            seconds.append(stream.final_seconds)
            assert note.onset <= stream.final_seconds or stream.final_seconds == 60
    assert given[0] <= 3
    assert len(set(given)) > 10
    assert seconds == sorted(seconds)


@pytest.mark.parametrize("size", [1000, MT3.segment_samples, 100_003])
@pytest.mark.parametrize("seconds", [0.01, 10, 5 * SEGMENT_SECONDS, 5 * SEGMENT_SECONDS - 0.001])
def test_audio_in_pieces_is_the_whole(size, seconds):
    samples = noise(seconds)
    expected = Scripted().transcribe((samples, RATE_HZ))
    pieces = (samples[start : start + size] for start in range(0, len(samples), size))
    stream = Scripted().stream(pieces, RATE_HZ)
    assert list(stream) == expected.notes
    assert stream.final_seconds == pytest.approx(seconds)


def test_log_mels_of_pieces_are_those_of_the_whole_also_at_another_rate():
    from mt3core.audio.load import load_audio
    from mt3core.segments import segments
    from mt3core.spectrogram import log_mel_segments

    stereo = np.stack([noise(7, seed) for seed in (0, 1)], axis=1)
    pieces = [stereo[:1], stereo[1:50_000], np.zeros((0, 2), np.float32), stereo[50_000:]]
    for rate_hz in (RATE_HZ, 44_100):
        samples = load_audio((stereo, rate_hz))
        expected = log_mel_segments(samples, segments(len(samples), MT3), MT3)
        found = np.stack(list(ArrivingSegments(mono_blocks(pieces, rate_hz, RATE_HZ), MT3)))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_an_endless_stream_keeps_nothing_and_can_be_left():
    arriving = ArrivingSegments((noise(1) for _ in itertools.count()), MT3)
    for number, _ in enumerate(itertools.islice(arriving, 50)):
        arriving.take(number)
    assert not arriving._segments
    transcriber = Scripted()
    with transcriber.stream((noise(1) for _ in itertools.count()), RATE_HZ) as stream:
        notes = list(itertools.islice(stream, 100))
    assert notes == sorted(notes, key=lambda note: note.onset)
    assert list(stream) == []


class Results:
    """Segments that end when they are closed, from whichever thread, like those of the engine."""

    def __init__(self, segments):
        self.segments, self.is_closed = segments, False

    def __iter__(self):
        return self

    def __next__(self):
        if self.is_closed:
            raise StopIteration
        return next(self.segments)

    def close(self):
        self.is_closed = True


class Closable(Scripted):
    def generate_stream(self, log_mels, last_steps=None):
        return Results(super().generate_stream(log_mels))


def test_a_stream_closed_while_it_decodes_gives_nothing_that_is_not_final():
    """Notes that sound when it is closed have no end, and there is no result."""
    samples = noise(40)
    expected = Scripted(order=1).transcribe((samples, RATE_HZ)).notes
    streams = []
    for number in (1, 5, 11):

        def close(done, _, number=number):
            if done == number:
                streams[-1].close()

        streams.append(Closable(order=1).stream((samples, RATE_HZ), progress=close))
        found = list(streams[-1])
        assert found == expected[: len(found)]
        assert len(found) < len(expected)
        assert streams[-1].result is None
        assert list(streams[-1]) == []
    assert found


def test_an_interruption_ends_a_stream():
    def interrupt(done, _):
        if done == 5:
            raise KeyboardInterrupt

    stream = Closable(order=1).stream((noise(40), RATE_HZ), progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(stream)
    assert list(stream) == []
    assert stream.result is None
    stream.close()


def test_what_needs_the_whole_recording_is_refused():
    for decoding, times in [(Decoding(continuous=True), {}), (None, {"start_seconds": 1.0})]:
        with pytest.raises(UsageError, match="need the whole recording"):
            Scripted(decoding).stream([noise(1)], RATE_HZ, **times)


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([], "no samples"),
        ([np.zeros(0)], "no samples"),
        ([noise(3), np.full(10, np.nan, np.float32)], r"not finite .* after 3.0 s"),
        ([np.zeros((2, 2, 2))], "3 dimensions"),
    ],
)
def test_bad_pieces(pieces, problem):
    with pytest.raises(AudioError, match=problem):
        list(Scripted().stream(pieces, RATE_HZ))


def plucked(semitones):
    """Seconds of decaying tones, half a second each."""
    time = np.arange(RATE_HZ // 2) / RATE_HZ
    tones = [sum(np.sin(2 * np.pi * k * 220 * 2 ** (n / 12) * time) / k for k in range(1, 6)) for n in semitones]
    return np.concatenate([0.2 * np.exp(-4 * time) * tone for tone in tones]).astype(np.float32)


@pytest.mark.integration
def test_streams_of_a_network_at_the_same_time_equal_transcriptions():
    """With PyTorch: whole, in pieces, side by side, and one closed by another thread while its audio is late."""
    pytest.importorskip("torch")
    from mt3torch import Transcriber

    transcriber = Transcriber.from_pretrained("small", "cpu", workers=2)
    rate_hz = RATE_HZ
    recordings = [plucked(np.arange(6) * 2 + 3 * number) for number in range(4)]
    expected = [transcriber.transcribe((samples, rate_hz)).notes for samples in recordings]
    assert sum(map(len, expected)) > 10
    found = {}

    def listen(number):
        samples = recordings[number]
        form = transcriber.stream((samples, rate_hz)) if number % 2 else transcriber.stream([samples], rate_hz)
        found[number] = list(form)

    late, is_heard = threading.Event(), threading.Event()

    def slow():
        yield recordings[0]
        is_heard.set()
        late.wait(60)

    waiting = transcriber.stream(slow(), rate_hz)
    threads = [threading.Thread(target=listen, args=(number,)) for number in range(4)]
    threads.append(threading.Thread(target=lambda: list(waiting)))
    for thread in threads:
        thread.start()
    assert is_heard.wait(60)
    for thread in threads[:4]:
        thread.join(60)
    waiting.close()
    threads[4].join(60)
    assert not threads[4].is_alive()
    late.set()
    assert [simple(found[number]) for number in range(4)] == [simple(notes) for notes in expected]
    transcriber.close()


def simple(notes):
    """Without the last digits of confidences, which may depend on the neighbours in a batch."""
    return [(note.onset, note.offset, note.pitch, note.program, note.is_drum) for note in notes]


@pytest.mark.integration
def test_streams_in_jax():
    pytest.importorskip("jax")
    from mt3jax import Transcriber

    transcriber, samples = Transcriber.from_pretrained("small", "cpu"), plucked(range(0, 16, 2))
    expected = simple(transcriber.transcribe((samples, RATE_HZ)).notes)
    assert len(expected) > 3
    assert simple(transcriber.stream((samples, RATE_HZ))) == expected
    assert simple(transcriber.stream(np.array_split(samples, 5), RATE_HZ)) == expected


@pytest.mark.parametrize("package", ["mt3torch", "mt3jax"])
def test_an_error_in_reading_comes_after_the_notes_before_it(package):
    """All that was read is decoded, although segments are read ahead and decoded side by side."""
    pytest.importorskip(package.removeprefix("mt3"))
    framework = pytest.importorskip(package)
    config, arrays = wild_arrays("mt3", {"pitch": 2, "velocity": 4}, 1)
    options = Decoding(max_tokens=MAX_TOKENS, grammar=True)
    transcriber = framework.Transcriber(framework.build_model(config, arrays, "cpu"), options, batch_size=8)
    samples = noise(2)
    expected = transcriber.transcribe((samples, RATE_HZ)).notes

    def pieces():
        yield from np.array_split(samples, 4)[:3]
        raise OSError("The connection is lost.")

    arriving, decoded, found = ArrivingSegments(mono_blocks(pieces(), RATE_HZ, RATE_HZ), config), [], []
    with pytest.raises(OSError, match="connection"):
        list(arriving)
    stream = transcriber.stream(pieces(), RATE_HZ, lambda done, _: decoded.append(done))
    with pytest.raises(OSError, match="connection"):
        found += stream
    assert arriving.num_given > 20
    assert decoded == list(range(1, arriving.num_given + 1))
    assert len(expected) > len(found) > len(expected) / 2
    assert simple(found) == simple(expected)[: len(found)]
    assert stream.result is None
    transcriber.close()
