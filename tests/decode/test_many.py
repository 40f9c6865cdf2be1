"""Several recordings are decoded together, with the results that each has alone, in order."""

import itertools
import threading

import numpy as np
import pytest
import soundfile
from inventive import Inventive
from small_models import RATE_HZ

from mt3core.decoding import Decoding
from mt3core.errors import AudioError, DecodingError
from mt3core.notes.choosing import NoteChoice
from mt3decode.ahead import ReadAhead
from mt3decode.many import Numbered
from mt3decode.stretches import Stretches

pytestmark = pytest.mark.unit
SECONDS = 20


class Together(Inventive):
    """Reads groups of segments, gives them in a mixed order, and counts its streams."""

    decodes_together = True

    def __init__(self, order=5, decoding=None, num_read_ahead=1):
        super().__init__()
        self.decoding = decoding or self.decoding
        self.order, self.num_streams, self.num_read_ahead = order, 0, num_read_ahead
        self.most = 0

    def generate_stream(self, log_mels, last_steps=None):
        self.num_streams += 1
        if isinstance(log_mels, Stretches):
            while starts := log_mels.take(1):
                for _, generated in super().generate_stream([starts[0].log_mel]):
                    log_mels.give(starts[0].number, generated.tokens)
                    yield starts[0].number, generated
            return
        stream = super().generate_stream(log_mels)
        while group := list(itertools.islice(stream, self.order)):
            self.most = max(self.most, group[-1][0])
            assert all(last_steps[number] > 100 for number, _ in group)
            yield from reversed(group)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, int(seconds * RATE_HZ)).astype(np.float32)


LENGTHS = [1.0, 6.3, 0.01, 2.0, 13.0, 4.1, 4.1]


@pytest.fixture(scope="module")
def recordings():
    return [(noise(seconds, seed), RATE_HZ) for seed, seconds in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def expected(recordings):
    return [Inventive().transcribe(recording) for recording in recordings]


@pytest.mark.parametrize("num_read_ahead", [1, 3])
@pytest.mark.parametrize("order", [1, 5, 100])
def test_each_has_the_result_that_it_has_alone(recordings, expected, order, num_read_ahead):
    transcriber = Together(order, num_read_ahead=num_read_ahead)
    assert transcriber.transcribe(recordings) == expected
    assert transcriber.num_streams == 1
    for stream, result in zip(transcriber.stream_many(recordings), expected, strict=True):
        assert list(stream) == result.notes
        assert stream.result == result


@pytest.mark.parametrize(
    ("decoding", "options"),
    [
        (Decoding(overlap=2), {}),
        (Decoding(continuous=True), {}),
        (None, {"start_seconds": 0.005, "end_seconds": 3.0}),
        (None, {"choice": NoteChoice(merge_gap_seconds=0.2)}),
    ],
)
def test_in_every_way_of_decoding(recordings, decoding, options):
    alone = Together(decoding=decoding)
    expected = [alone.transcribe(recording, **options) for recording in recordings]
    transcriber = Together(decoding=decoding)
    assert transcriber.transcribe(recordings, **options) == expected
    is_alone = decoding is not None and decoding.continuous
    assert transcriber.num_streams == (len(recordings) if is_alone else 1)


def test_progress_is_told_by_recording(recordings, expected):
    calls = []
    for stream in Together().stream_many(recordings, lambda *numbers: calls.append(numbers)):
        stream.finish()
    for number, result in enumerate(expected):
        own = [call[1:] for call in calls if call[0] == number]
        assert own[-1] == (len(result.segments), len(result.segments))
        assert own == sorted(own)
    assert [number for number, _, _ in calls] == sorted(number for number, _, _ in calls)


@pytest.mark.parametrize("num_read_ahead", [1, 3])
def test_an_error_in_reading_is_that_of_its_recording(tmp_path, recordings, expected, num_read_ahead):
    soundfile.write(tmp_path / "a.flac", noise(20), RATE_HZ)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[-2000:-1900] = bytes(100)
    sources = [recordings[0], "gone.wav", recordings[1], bytes(content), recordings[3], "gone.wav"]
    transcriber, found = Together(num_read_ahead=num_read_ahead), []
    for stream in transcriber.stream_many(sources):
        try:
            found.append(stream.finish())
        except AudioError as error:
            found.append(error.problem.split()[0])
    assert found == [expected[0], "There", expected[1], "The", expected[3], "There"]
    assert transcriber.num_streams == 1
    with pytest.raises(AudioError, match=r"Recording 4 of 6: .*damaged"):
        transcriber.transcribe([sources[0], sources[2], sources[2], *sources[3:]])


def test_a_damaged_end_behind_an_excerpt_is_no_success(tmp_path, recordings):
    soundfile.write(tmp_path / "a.flac", noise(60), RATE_HZ)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[-2000:-1900] = bytes(100)
    for order in (1, 5, 100):
        with pytest.raises(AudioError, match=r"Recording 1 of 2: .*damaged"):
            Together(order).transcribe([bytes(content), recordings[1]], start_seconds=0.0, end_seconds=2.5)


def test_after_an_error_in_decoding_the_others_are_decoded_anew(recordings, expected):
    class Failing(Together):
        def generate_stream(self, log_mels, last_steps=None):
            stream = super().generate_stream(log_mels, last_steps)
            for number, one in enumerate(stream):
                if number == 3 and self.num_streams == 1:
                    raise DecodingError("No memory.", "Buy some.")
                yield one

    transcriber, found = Failing(order=1), []
    for stream in transcriber.stream_many(recordings):
        try:
            found.append(stream.finish())
        except DecodingError as error:
            found.append(error.problem)
    assert found == [expected[0], "No memory.", *expected[2:]]
    assert transcriber.num_streams == 2


def test_streams_may_be_left_early(recordings, expected):
    for skip in (0, 1, 3):
        transcriber = Together(order=2)
        for number, stream in enumerate(transcriber.stream_many(recordings)):
            if number == 4:
                list(itertools.islice(stream, 3))
            elif number != skip:
                assert stream.finish() == expected[number]
    with_break = Together(order=1)
    streams = with_break.stream_many(recordings)
    next(next(streams))
    streams.close()
    assert list(streams) == []


def test_what_is_given_is_read_no_further_than_needed():
    """Endless audio, and nothing of what is done is kept."""
    asked = []

    def sources():
        for number in itertools.count():
            asked.append(number)
            yield noise(0.5, number), RATE_HZ

    transcriber = Together(order=8)
    for number, stream in enumerate(transcriber.stream_many(sources())):
        stream.finish()
        assert len(asked) <= number + 10
        if number == 30:
            break
    assert transcriber.num_streams == 1


def test_numbered_items_in_two_threads():
    items = Numbered(iter(range(100)))
    found = {0: [], 1: []}

    def read(which):
        found[which] += [items.get(number) for number in range(100)]

    threads = [threading.Thread(target=read, args=(which,)) for which in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert found[0] == found[1] == list(range(100))
    assert items.get(100) is None
    items.forget(3)
    assert items.get(4) == 4
    with pytest.raises(LookupError):
        items.get(3)


def test_items_are_made_ahead_but_not_too_many():
    made, is_closed = [], threading.Event()

    def items():
        try:
            for number in itertools.count():
                made.append(number)
                yield number
        finally:
            is_closed.set()

    ahead = ReadAhead(items(), 3)
    assert [next(ahead) for _ in range(5)] == list(range(5))
    for _ in range(100 * SECONDS):
        if len(made) == 9:
            break
        threading.Event().wait(0.01)
    assert len(made) == 9  # five taken, three ready, one that waits for its place
    ahead.close()
    assert is_closed.wait(SECONDS)
    assert list(ahead) == []


def test_an_error_comes_after_what_was_made_before_it():
    def items():
        yield 1
        raise AudioError("It is damaged.", "Copy it again.")

    ahead = ReadAhead(items(), 3)
    assert next(ahead) == 1
    with pytest.raises(AudioError, match="It is damaged"):
        next(ahead)
    assert list(ahead) == []


@pytest.mark.integration
@pytest.mark.parametrize("package", ["mt3torch", "mt3jax"])
def test_networks_decode_a_list_as_each_alone(package):
    """Tokens are equal; the last digits of confidences may depend on the neighbours in a batch."""
    pytest.importorskip(package.removeprefix("mt3"))
    transcriber = pytest.importorskip(package).Transcriber.from_pretrained("small", "cpu")
    time = np.arange(int(1.5 * RATE_HZ)) / RATE_HZ
    tones = [
        (0.3 * np.exp(-2 * time) * np.sin(2 * np.pi * hz * time)).astype(np.float32) for hz in (220, 330, 440, 554)
    ]
    recordings = [(tones[0], RATE_HZ), (np.concatenate(tones), RATE_HZ), (tones[2][:5000], RATE_HZ)]
    alone = [transcriber.transcribe(recording) for recording in recordings]
    together = transcriber.transcribe(recordings)
    assert [one.segments for one in together] == [one.segments for one in alone]
    assert sum(len(one.notes) for one in together) > 3
    assert transcriber.decodes_together
    transcriber.close()
