"""Decoding in PyTorch: against the original, against a search without cache, and the lanes' own promises."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.config.model import MT3  # noqa: E402
from mt3core.decoding import END_TOKEN, Decoding  # noqa: E402
from mt3core.model.directory import save_model_directory  # noqa: E402
from mt3core.segments import segments  # noqa: E402
from mt3core.spectrogram import log_mel_segments  # noqa: E402
from mt3torch import Transcriber, build_model, decoding, generate, stepper  # noqa: E402

MAX_TOKENS = 16
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
    pytest.param("mps", marks=pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no MPS device")),
]
METHODS = [("greedy",), ("t5x",), ("beam", 2), ("beam", 4)]


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 10)


@pytest.fixture(autouse=True)
def small_beginnings(monkeypatch):
    """Caches that must grow, and lanes of different ages that are not attended to together."""
    monkeypatch.setattr(stepper, "CAPACITY_STEP", 4)
    monkeypatch.setattr(stepper, "SHORT_TOKENS", 1)


@pytest.fixture(autouse=True)
def few_threads(request):
    """Tiny networks gain nothing from threads, and lose much where the processor is busy with other work."""
    before = torch.get_num_threads()
    if "published" not in request.fixturenames:
        torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stream(model, log_mel, options, batch_size=4):
    """What `generate_stream` gives, in order."""
    by_index = dict(decoding.generate_stream(model, log_mel, options, batch_size))
    return [by_index[index] for index in range(len(log_mel))]


def options(method, num_beams=1, max_tokens=MAX_TOKENS):
    return Decoding(method, num_beams, max_tokens=max_tokens)


def tokens_of(generated):
    return [g.tokens.tolist() for g in generated]


@pytest.fixture(scope="module")
def published(published_arrays):
    return build_model(*published_arrays, "cpu")


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(("method", "prefix"), [("t5x", "decoded"), ("greedy", "greedy"), ("beam", "decoded")])
def test_tokens_and_scores_equal_the_original(golden, published, method, prefix):
    network, difference = golden("network.npz"), golden("decoding_difference.npz")
    samples = difference["audio"].astype(np.float32) / 32768
    noisy = [log_mel_segments(row, segments(len(row), MT3)[:1], MT3)[0] for row in samples]
    found = generate(published, np.stack([*network["inputs"], *noisy]), Decoding(method))
    rows = [*network[f"{prefix}_ids"], *difference[f"{prefix}_ids"]]
    lengths = [*network[f"{prefix}_length"], *difference[f"{prefix}_length"]]
    assert tokens_of(found) == [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]
    if prefix == "decoded":
        scores = [*network["decoded_score"], *difference["decoded_score"]]
        np.testing.assert_allclose([g.score for g in found], scores, atol=1e-3)


@pytest.fixture(scope="module")
def next_log_probabilities(model, log_mel):
    """Log probabilities of the next token after some beginnings for one segment, computed without a cache."""

    def compute(segment, beginnings):
        tokens = torch.tensor([(0, *beginning) for beginning in beginnings])
        encoded = model.encode(torch.from_numpy(log_mel[segment])[None]).expand(len(tokens), -1, -1)
        return model.decode(encoded, tokens)[:, -1].log_softmax(dim=-1).double().numpy()

    return compute


def search(next_log_probabilities, segment, options):
    """T5X's beam search over Python lists, for one segment."""
    living, finished = [(0.0, ())], []

    def penalty(length):
        return ((5 + length) / 6) ** options.length_penalty

    for length in range(1, options.max_tokens + 1):
        reachable = living[0][0] / penalty(options.max_tokens + 1)
        if len(finished) == options.num_beams and finished[-1][0] > reachable:
            break
        rows = next_log_probabilities(segment, [tokens for _, tokens in living])
        continued = [
            (score + value, (*tokens, token))
            for (score, tokens), row in zip(living, rows, strict=True)
            for token, value in enumerate(row)
        ]
        best = sorted(continued, reverse=True)[: 2 * options.num_beams]
        living = [(score, tokens) for score, tokens in best if tokens[-1] != END_TOKEN][: options.num_beams]
        finished += [(score / penalty(length), tokens) for score, tokens in best if tokens[-1] == END_TOKEN]
        finished = sorted(finished, reverse=True)[: options.num_beams]
    if finished:
        return finished[0]
    return living[0][0] / penalty(options.max_tokens), living[0][1]


@pytest.mark.unit
@pytest.mark.parametrize("max_tokens", [MAX_TOKENS, 6, 1])
@pytest.mark.parametrize(("method", "num_beams"), [("t5x", 1), ("beam", 1), ("beam", 2), ("beam", 4)])
def test_beams_equal_a_search_without_cache(model, log_mel, next_log_probabilities, method, num_beams, max_tokens):
    chosen = options(method, num_beams, max_tokens)
    found = stream(model, log_mel, chosen)
    expected = [search(next_log_probabilities, segment, chosen) for segment in range(len(log_mel))]
    assert tokens_of(found) == [list(tokens) for _, tokens in expected]
    np.testing.assert_allclose([g.score for g in found], [score for score, _ in expected], atol=1e-4)


@pytest.mark.unit
def test_the_tiny_network_tells_methods_apart(model, log_mel):
    found = [tokens_of(stream(model, log_mel, options(*method))) for method in METHODS]
    assert all(one != other for one, other in itertools.combinations(found, 2))
    short = stream(model, log_mel, options("t5x", max_tokens=6))
    ends = {tokens[-1] == END_TOKEN for tokens in tokens_of(short)}
    assert ends == {True, False}


@pytest.mark.unit
def test_greedy_takes_the_best_token_each_time(model, log_mel, next_log_probabilities):
    found = stream(model, log_mel, options("greedy"))
    for segment, generated in enumerate(found):
        tokens, log_probabilities = [], []
        while len(tokens) < MAX_TOKENS and END_TOKEN not in tokens:
            (row,) = next_log_probabilities(segment, [tokens])
            tokens.append(int(np.argmax(row)))
            log_probabilities.append(row.max())
        total = sum(log_probabilities)
        np.testing.assert_allclose(generated.log_probabilities, log_probabilities, atol=1e-4)
        assert generated.tokens.tolist() == tokens
        assert generated.tokens.dtype == np.int32
        assert generated.score == pytest.approx(total / ((5 + len(tokens)) / 6) ** 0.6, abs=1e-4)


@pytest.mark.unit
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("num_beams", [1, 3])
def test_lanes_give_the_logits_of_teacher_forcing(form, num_beams):
    """Lanes that start at different times, and one that is freed while others go on."""
    config = tiny(form)
    model = build_model(config, random_arrays(config), "cpu")
    encoded = model.encode(torch.from_numpy(random_log_mel(config, 5)))
    tokens = np.random.default_rng(3).integers(0, config.network.vocab_size, (5, num_beams, 14))
    expected = np.stack(
        [model.decode(e.expand(num_beams, -1, -1), torch.from_numpy(t)) for e, t in zip(encoded, tokens, strict=True)]
    )
    lanes, present = stepper.Lanes(stepper.Stepper(model), 4, num_beams, encoded.shape[1], 14), []
    for time in range(14):
        if time in (0, 3, 7):
            added = {0: [0, 1], 3: [2, 3], 7: [4]}[time]
            lanes.add(encoded[added])
            present += added
        at = lanes.lengths.copy()
        found = lanes.step(tokens[present, :, at]).reshape(len(present), num_beams, -1)
        np.testing.assert_allclose(found, expected[present, :, at], rtol=0, atol=2e-5)
        if time in (5, 8):
            kept = lanes.free(np.array(present) == {5: 0, 8: 2}[time])
            present = [present[lane] for lane in kept]
    assert sorted(present) == [1, 3, 4]


@pytest.mark.unit
def test_gaps_are_closed_with_few_moves_and_the_old_stay_in_front(model, monkeypatch):
    lanes = stepper.Lanes(stepper.Stepper(model), 9, 1, 7, 20)
    lanes.add(torch.zeros(9, 7, 8))
    monkeypatch.setattr(stepper, "GROUP_SHARE", 0.67)
    lanes.lengths[:] = [20, 19, 18, 18, 9, 8, 8, 2, 2]
    moves = []
    monkeypatch.setattr(lanes, "_move", lambda source, target, length: moves.append((source, target, length)))
    kept = lanes.free(np.arange(9) == 1)
    assert moves == [(3, 1, 18), (6, 3, 8), (8, 6, 2)]
    assert kept.tolist() == [0, 3, 2, 6, 4, 5, 8, 7]
    assert lanes.lengths.tolist() == [20, 18, 18, 8, 9, 8, 2, 2]
    # The lane of 8 tokens in front of one with 9: what they attend to must reach the longer one's end.
    assert lanes._alike() == [(slice(0, 3), 20), (slice(3, 6), 9), (slice(6, 8), 2)]


@pytest.mark.unit
@pytest.mark.parametrize("method", METHODS)
def test_companions_and_batch_size_change_nothing(model, log_mel, method):
    chosen = options(*method)
    together = tokens_of(generate(model, log_mel, chosen))
    assert together == tokens_of(generate(model, torch.from_numpy(log_mel), chosen))
    assert together == [tokens_of(generate(model, row[None], chosen))[0] for row in log_mel]
    for batch_size in (1, 3, 40):
        assert together == tokens_of(stream(model, log_mel, chosen, batch_size))
    assert together[::-1] == tokens_of(stream(model, log_mel[::-1], chosen))


@pytest.mark.unit
def test_results_come_when_they_are_done(model, log_mel):
    order = [index for index, _ in decoding.generate_stream(model, log_mel, options("t5x"), 4)]
    assert order != sorted(order)
    assert sorted(order) == list(range(len(log_mel)))


@pytest.mark.unit
def test_no_more_tokens_than_positions(model, log_mel):
    found = stream(model, log_mel, Decoding("greedy", max_tokens=10_000))
    assert max(len(g.tokens) for g in found) == tiny().network.max_positions


@pytest.mark.unit
@pytest.mark.parametrize("method", [("t5x",), ("beam", 2)])
def test_the_stream_is_read_as_it_is_needed(model, log_mel, method):
    """Of an endless stream only as much is read as fits the lanes and the group encoded ahead."""
    read = 0

    def endless():
        nonlocal read
        for row in itertools.cycle(log_mel):
            read += 1
            yield row

    given = 0
    for _ in itertools.islice(decoding.generate_stream(model, endless(), options(*method), 4), 30):
        given += 1
        assert read - given < 4 + min(4, decoding.ENCODER_BATCH)
    assert given == 30


@pytest.mark.unit
def test_memory_follows_the_lanes_not_the_stream(model, log_mel, monkeypatch):
    """All caches are made at the beginning, and grow with the longest segment only."""
    made = []
    empty = stepper.Lanes._empty
    monkeypatch.setattr(stepper.Lanes, "_empty", lambda *given: made.append(empty(*given)) or made[-1])
    sizes = []
    for repeats in (1, 5):
        made.clear()
        stream(model, np.concatenate([log_mel] * repeats), options("t5x"))
        sizes.append([tuple(cache.shape) for cache in made])
    assert sizes[0] == sizes[1] != []


@pytest.mark.unit
def test_an_empty_stream_gives_nothing(model):
    for method in METHODS:
        assert generate(model, np.zeros((0, 7, 5), np.float32), options(*method)) == []


@pytest.mark.unit
def test_the_consumer_may_use_gradients_between_results(model, log_mel):
    """Inference mode must not leak out of the stream."""
    for _ in decoding.generate_stream(model, log_mel, options("t5x"), 4):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert not any(parameter.is_inference() for parameter in model.parameters())


@pytest.mark.device
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", FORMS)
def test_tokens_are_the_same_on_every_device(device, form):
    config = tiny(form)
    log_mel, arrays = random_log_mel(config, 6), random_arrays(config)
    for method in METHODS:
        expected = stream(build_model(config, arrays, "cpu"), log_mel, options(*method))
        found = generate(build_model(config, arrays, device), log_mel, options(*method))
        assert tokens_of(found) == tokens_of(expected)
        np.testing.assert_allclose([g.score for g in found], [g.score for g in expected], atol=1e-4)


@pytest.mark.unit
def test_the_transcriber_loads_a_model_directory(tmp_path, log_mel):
    save_model_directory(tmp_path / "model", tiny(), random_arrays(tiny()))
    transcriber = Transcriber.from_pretrained(tmp_path / "model", "cpu", options("beam", 2), batch_size=3)
    found = dict(transcriber.generate_stream(log_mel))
    expected = generate(build_model(tiny(), random_arrays(tiny()), "cpu"), log_mel, options("beam", 2))
    assert [found[index].tokens.tolist() for index in range(len(log_mel))] == tokens_of(expected)


@pytest.mark.unit
def test_fewer_lanes_for_more_beams(model, monkeypatch):
    def lanes(num_beams=1):
        return decoding.default_batch_size(prepared, options("beam", num_beams))

    prepared = stepper.Stepper(model)
    narrow = lanes()
    monkeypatch.setattr(prepared, "network", MT3.network)
    assert lanes() == 4 * lanes(4) < narrow
    assert lanes(1000) == 1
    on_cpu = lanes()
    monkeypatch.setattr(prepared, "device", torch.device("cuda"))
    assert lanes() > on_cpu
