"""Decoding in JAX: against the original, against a search without cache, and the lanes' own promises."""

import collections
import itertools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from tiny_networks import random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.config.model import MT3  # noqa: E402
from mt3core.decoding import END_TOKEN, Decoding  # noqa: E402
from mt3core.files import CACHE_VARIABLE  # noqa: E402
from mt3core.segments import segments  # noqa: E402
from mt3core.spectrogram import log_mel_segments  # noqa: E402
from mt3jax import Transcriber, beam, build_model, compilation, decoding, lanes  # noqa: E402

BATCH_SIZE = 8
MAX_TOKENS = 16


@pytest.fixture(scope="module")
def published(published_arrays):
    return build_model(*published_arrays, "cpu")


@pytest.fixture(scope="module")
def model():
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture(scope="module")
def log_mel():
    return random_log_mel(tiny(), 10)


@pytest.fixture
def few_positions(monkeypatch):
    """Caches that begin with eight positions, too few; one batch size, to compile little."""
    monkeypatch.setattr(lanes, "MIN_POSITIONS", 8)
    monkeypatch.setattr(decoding, "DEFAULT_BATCH_SIZE", BATCH_SIZE)


def stream(model, log_mel, options, batch_size=BATCH_SIZE):
    """What `generate_stream` gives, in order."""
    by_index = dict(decoding.generate_stream(model, log_mel, options, batch_size))
    return [by_index[index] for index in range(len(log_mel))]


def options(method, num_beams=1, max_tokens=MAX_TOKENS):
    return Decoding(method, num_beams, max_tokens=max_tokens)


def tokens_of(generated):
    return [g.tokens.tolist() for g in generated]


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(("method", "prefix"), [("t5x", "decoded"), ("greedy", "greedy")])
def test_tokens_and_scores_equal_the_original(golden, published, method, prefix):
    network, difference = golden("network.npz"), golden("decoding_difference.npz")
    samples = difference["audio"].astype(np.float32) / 32768
    noisy = [log_mel_segments(row, segments(len(row), MT3)[:1], MT3)[0] for row in samples]
    found = stream(published, [*network["inputs"], *noisy], Decoding(method))
    rows = [*network[f"{prefix}_ids"], *difference[f"{prefix}_ids"]]
    lengths = [*network[f"{prefix}_length"], *difference[f"{prefix}_length"]]
    assert tokens_of(found) == [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]
    if method == "t5x":
        scores = [*network["decoded_score"], *difference["decoded_score"]]
        np.testing.assert_allclose([g.score for g in found], scores, atol=1e-3)


@pytest.fixture(scope="module")
def next_log_probabilities(model, log_mel):
    """Log probabilities of the next token after some beginnings for one segment, computed without a cache."""

    @jax.jit
    def all_logits(log_mel, tokens):
        encoded = jnp.repeat(model.encode(log_mel[None]), len(tokens), axis=0)
        return jax.nn.log_softmax(model.decode(encoded, tokens))

    def compute(segment, beginnings):
        tokens = np.zeros((4, MAX_TOKENS), np.int32)
        for row, beginning in enumerate(beginnings):
            tokens[row, 1 : len(beginning) + 1] = beginning[: MAX_TOKENS - 1]
        result = np.asarray(all_logits(log_mel[segment], tokens), np.float64)
        return [result[row, len(beginning)] for row, beginning in enumerate(beginnings)]

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
@pytest.mark.usefixtures("few_positions")
@pytest.mark.parametrize("max_tokens", [MAX_TOKENS, 6])
@pytest.mark.parametrize("num_beams", [1, 2, 4])
def test_beams_equal_a_search_without_cache(model, log_mel, next_log_probabilities, num_beams, max_tokens):
    wide = options("beam", num_beams, max_tokens)
    found = stream(model, log_mel, wide)
    expected = [search(next_log_probabilities, segment, wide) for segment in range(len(log_mel))]
    assert tokens_of(found) == [list(tokens) for _, tokens in expected]
    np.testing.assert_allclose([g.score for g in found], [score for score, _ in expected], atol=1e-4)
    for one in found:  # their log probabilities follow the beams, also into longer caches
        total = one.log_probabilities.astype(float).sum()
        assert total / ((5 + len(one.tokens)) / 6) ** 0.6 == pytest.approx(one.score, abs=1e-4)


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_the_tiny_network_tells_methods_apart(model, log_mel):
    methods = [options("greedy"), options("t5x"), options("beam", 2), options("beam", 4)]
    found = [tokens_of(stream(model, log_mel, method)) for method in methods]
    assert all(one != other for one, other in itertools.combinations(found, 2))
    short = stream(model, log_mel, options("t5x", max_tokens=6))
    ends = {tokens[-1] == END_TOKEN for tokens in tokens_of(short)}
    assert ends == {True, False}


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
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
        assert generated.score == pytest.approx(total / ((5 + len(tokens)) / 6) ** 0.6, abs=1e-4)


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_one_beam_is_t5x(model, log_mel):
    lanes_found = stream(model, log_mel, options("t5x"))
    one_beam = options("beam", 1)
    beams_found = dict(beam.beam_search_stream(model, log_mel, one_beam, BATCH_SIZE))
    for index, generated in enumerate(lanes_found):
        assert beams_found[index].tokens.tolist() == generated.tokens.tolist()
        assert beams_found[index].score == pytest.approx(generated.score, abs=1e-5)
        np.testing.assert_allclose(beams_found[index].log_probabilities, generated.log_probabilities, atol=1e-5)
    assert tokens_of(stream(model, log_mel, one_beam)) == tokens_of(lanes_found)


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
@pytest.mark.parametrize("method", [("t5x",), ("greedy",), ("beam", 2)])
def test_companions_change_nothing(model, log_mel, method):
    chosen = options(*method)
    together = tokens_of(stream(model, log_mel, chosen))
    assert together == [tokens_of(stream(model, row[None], chosen))[0] for row in log_mel]
    assert together[::-1] == tokens_of(stream(model, log_mel[::-1], chosen))
    assert together == tokens_of(decoding.generate(model, log_mel, chosen))


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_the_batch_size_changes_nothing(model, log_mel):
    found = [tokens_of(stream(model, log_mel, options("t5x"), batch_size)) for batch_size in (BATCH_SIZE, 3)]
    assert found[0] == found[1]


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_no_more_tokens_than_positions(model, log_mel):
    found = stream(model, log_mel, Decoding("greedy", max_tokens=10_000))
    assert max(len(g.tokens) for g in found) <= tiny().network.max_positions


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
@pytest.mark.parametrize("method", [("t5x",), ("beam", 2)])
def test_the_stream_is_read_as_it_is_needed(model, log_mel, method):
    """Of an endless stream only as much is read as fits the batch and the group that waits."""
    read, given = 0, 0

    def endless():
        nonlocal read
        for row in itertools.cycle(log_mel):
            read += 1
            yield row

    for _ in itertools.islice(decoding.generate_stream(model, endless(), options(*method), BATCH_SIZE), 30):
        given += 1
        # In the lanes, in the two batches of longer lanes, and the group that waits.
        assert read - given <= BATCH_SIZE + 3 * BATCH_SIZE // decoding.GROUPS
    assert given == 30


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_an_empty_stream_gives_nothing(model):
    assert stream(model, np.zeros((0, 7, 5), np.float32), options("t5x")) == []
    assert stream(model, np.zeros((0, 7, 5), np.float32), options("beam", 2)) == []


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_every_shape_is_compiled_once(request):
    config = tiny("ungated")  # used nowhere else in this file
    log_mel = random_log_mel(config, 9)
    chosen = options("t5x", max_tokens=12)
    counts = collections.Counter()

    def count(event, seconds, fun_name="", **details):
        counts[fun_name] += event == compilation.COMPILE_EVENT

    def compiled():
        return [counts[f"jit({name})"] for name in ("new_lanes", "admit", "run", "move")]

    jax.monitoring.register_event_duration_secs_listener(count)
    request.addfinalizer(lambda: jax.monitoring.unregister_event_duration_listener(count))
    stream(build_model(config, random_arrays(config), "cpu"), log_mel, chosen)
    # One admits and one moves; short and long lanes are made, and run, by one each.
    assert compiled() == [2, 1, 2, 1]
    other = build_model(config, random_arrays(config, seed=5), "cpu")
    stream(other, log_mel[:1], chosen)
    stream(other, log_mel, Decoding("t5x", max_tokens=10, length_penalty=0.3))
    assert compiled() == [2, 1, 2, 1]


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_parameters_are_arguments_not_constants(log_mel):
    """The same program serves other weights, and gives other tokens."""
    one, other = (build_model(tiny(), random_arrays(tiny(), seed), "cpu") for seed in (0, 1))
    assert tokens_of(stream(one, log_mel, options("t5x"))) != tokens_of(stream(other, log_mel, options("t5x")))


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_the_transcriber_reports_its_compile_time():
    config = tiny("tied")
    transcriber = Transcriber(build_model(config, random_arrays(config), "cpu"), batch_size=4)
    assert transcriber.compile_seconds == 0.0
    rows = list(random_log_mel(config, 2))
    assert sorted(index for index, _ in transcriber.generate_stream(rows)) == [0, 1]
    first = transcriber.compile_seconds
    assert first > 0.0
    list(transcriber.generate_stream(rows))
    assert transcriber.compile_seconds == first


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_batch_size_follows_the_device(model):
    assert Transcriber(model).batch_size == Transcriber(model, batch_size=None).batch_size >= 8
    assert Transcriber(model, batch_size=5).batch_size == 5


@pytest.fixture
def without_program_cache():
    """JAX without a directory for compiled programs, and afterwards as it was."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    compilation.keep_compiled_programs.cache_clear()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation.keep_compiled_programs.cache_clear()
    compilation.compilation_cache.reset_cache()


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_compiled_programs_are_kept_where_the_user_says(tmp_path, monkeypatch, without_program_cache):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(compilation, "MIN_STORED_COMPILE_SECONDS", 0.0)

    def double(factor, x):
        return jnp.sin(x) * factor

    values = jnp.arange(3.0)
    double = compilation.program(static=("factor",))(double)
    np.testing.assert_allclose(double(2.0, values), 2 * np.sin(np.arange(3.0)), rtol=1e-6)
    assert any((tmp_path / "jax").iterdir())
    assert compilation.keep_compiled_programs() == tmp_path / "jax"


@pytest.mark.unit
@pytest.mark.usefixtures("few_positions")
def test_an_unwritable_place_for_programs_is_no_error(tmp_path, monkeypatch, without_program_cache):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    assert compilation.keep_compiled_programs() is None
    assert compilation.program()(lambda x: x * 2)(jnp.ones(2)).tolist() == [2.0, 2.0]
