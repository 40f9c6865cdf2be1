"""The training loss: the original's numbers, and the same ones however targets are laid out and logits are cut."""

import dataclasses
import functools
import math

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from golden_codec import event_of  # noqa: E402
from packed_batches import (  # noqa: E402
    LENGTHS,
    QUICKLY,
    VOCAB_SIZE,
    computed,
    distance,
    loss_and_gradients,
    params_of,
    part_of,
    targets,
    training_config,
)

from mt3core.config.model import MT3, PRESETS  # noqa: E402
from mt3core.config.training import TrainingConfig  # noqa: E402
from mt3core.notes.vocabulary import EOS_ID, Vocabulary  # noqa: E402
from mt3core.spectrogram import segment_log_mel  # noqa: E402
from mt3jax import attention, build_model  # noqa: E402
from mt3jax.packing import Packing  # noqa: E402
from mt3jax.row_packing import PLACES, pad  # noqa: E402
from mt3jax.training.step import loss  # noqa: E402
from mt3jax.training.step.loss import EVENT_TYPES, loss_sums, network_input, sums_of_logits, types_of_tokens  # noqa: E402

unit = pytest.mark.unit
integration = pytest.mark.integration


@integration
def test_losses_equal_the_original(published_arrays, golden):
    network = golden("network.npz")
    config = TrainingConfig("mt3")
    graph, params = nnx.split(build_model(*published_arrays, "cpu"))
    run = jax.jit(lambda params, part: loss_sums(nnx.merge(graph, params), part, config))

    def sums(segments, target_ids, input_ids):
        rows = np.zeros((2, 201), np.int32)
        rows[:, : target_ids.shape[1]] = target_ids
        part = pad(rows)
        width = input_ids.shape[1]
        is_target = rows[:, :width] > 0
        np.testing.assert_array_equal(part["decoder_inputs"][:, :width][is_target], input_ids[is_target])
        return run(params, {"log_mel": network["inputs"][segments], **part})

    decoded = sums(slice(2), network["decoder_target_ids"][:2], network["decoder_input_ids"][:2])
    assert float(decoded.loss) == pytest.approx(network["loss_decoded"], rel=1e-5)
    assert float(decoded.cross_entropy) == pytest.approx(network["loss_decoded_without_z"], rel=1e-5)
    # What the original wrote is what it thought most likely at every place, up to the odd one.
    assert float(decoded.num_tokens) == float(decoded.count.sum()) == network["decoded_length"][:2].sum()
    assert (
        float(decoded.correct.sum())
        == (network["argmax"] == network["decoder_target_ids"])[:2][network["decoder_target_ids"][:2] > 0].sum()
    )
    random = sums(network["random_segments"], network["random_target_ids"], network["random_decoder_input_ids"])
    assert float(random.loss) == pytest.approx(network["loss_random"], rel=1e-5)


@pytest.fixture(scope="module")
def plain():
    """Loss and gradients with dropout by `encode` and `decode`, a row for every target and all logits at once."""
    config = training_config(dropout_rate=0.3)
    graph, params = params_of(config)
    part, _ = part_of(config, "padded")
    targets, inputs = part["targets"], part["decoder_inputs"]

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    @jax.value_and_grad
    def run(params, key):
        model, keys = nnx.merge(graph, params), jax.random.split(key)
        logits = model.decode(model.encode(part["log_mel"], dropout_key=keys[0]), inputs, dropout_key=keys[1])
        logsumexp = jnp.log(jnp.exp(logits).sum(-1))
        chosen = (logits * jax.nn.one_hot(targets, VOCAB_SIZE)).sum(-1)
        return jnp.sum((logsumexp - chosen + 1e-4 * logsumexp**2) * (targets > 0))

    return config, *run(params, jax.random.key(7))


@unit
@pytest.mark.parametrize(("layout", "compute"), [("packed", {}), ("groups", {"remat": True})], ids=["packed", "remat"])
def test_neither_layout_nor_chunks_nor_remat_change_loss_or_gradients(plain, layout, compute):
    """With dropout, whose draws are a segment's own wherever it lies."""
    config, expected, expected_gradients = plain
    sums, gradients = loss_and_gradients(computed(config, **compute), layout, jax.random.key(7))
    assert float(sums.loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(sums.cross_entropy + sums.z_loss) == pytest.approx(float(expected), rel=1e-6)
    assert float(sums.num_tokens) == sum(LENGTHS)
    assert distance(gradients, expected_gradients) < 1e-6
    assert all(bool(jnp.any(leaf != 0)) for leaf in jax.tree.leaves(gradients))


@unit
def test_bfloat16_is_close(plain):
    """Within its eight bits of precision, and gradients come as float32."""
    config, expected, expected_gradients = plain
    sums, gradients = loss_and_gradients(computed(config, dtype="bfloat16"), "packed", jax.random.key(7))
    assert float(sums.loss) == pytest.approx(float(expected), rel=0.02)
    assert 1e-4 < distance(gradients, expected_gradients) < 0.03
    assert {leaf.dtype for leaf in jax.tree.leaves((sums, gradients))} == {jnp.dtype("float32")}


def arrays_in(jaxpr):
    """The shapes and types of all that a program computes, in its inner programs too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval for variable in equation.outvars)
        for value in equation.params.values():
            for inner in value if isinstance(value, list | tuple) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from arrays_in(inner)


@unit
def test_all_logits_are_never_in_memory():
    config = training_config()
    part, _ = part_of(config, "packed")
    graph, params = params_of(config)

    def most_logits(chunk_tokens):
        chunked = training_config(chunk_tokens=chunk_tokens)
        gradient = jax.grad(lambda params: loss_sums(nnx.merge(graph, params), part, chunked).loss)
        arrays = list(arrays_in(jax.make_jaxpr(gradient)(params).jaxpr))
        assert len(arrays) > 300
        # Of rows, tokens and vocabulary; two axes have the one-hot tokens of the embedding's gradient.
        return max(math.prod(a.shape[:-1]) for a in arrays if len(a.shape) == 3 and a.shape[-1] == VOCAB_SIZE)

    num_rows, num_tokens = part["targets"].shape
    assert most_logits(num_tokens) == num_rows * num_tokens
    assert most_logits(7) == num_rows * 7


@unit
def test_segments_of_a_row_neither_see_each_other_nor_the_future():
    """By gradients: what a token's loss depends on are its own audio and its own segment up to it, and all of these."""
    config = training_config()
    is_embedding = nnx.PathContains("token_embedder")
    graph, embedding, others = nnx.split(nnx.merge(*params_of(config)), is_embedding, ...)
    part, _ = part_of(config, "packed")
    packing = Packing(*(part[name] for name in PLACES), len(LENGTHS))
    rows, columns = np.nonzero(np.asarray(part["targets"]))
    order = np.random.default_rng(0).permutation(len(rows))[:12]
    rows, columns = rows[order], columns[order]

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    @functools.partial(jax.jacrev, argnums=(0, 1))
    def sensitivity(embedding, log_mel):
        model = nnx.merge(graph, embedding, others)
        hidden = model.decode_packed(model.encode(log_mel), part["decoder_inputs"], packing)
        return jax.nn.logsumexp(model.decoder.logits(hidden), axis=-1)[rows, columns]

    by_embedding, by_log_mel = sensitivity(embedding, part["log_mel"])
    (by_embedding,) = jax.tree.leaves(by_embedding)
    by_example = np.abs(by_log_mel).max(axis=(2, 3)) > 0
    by_token = np.abs(by_embedding).max(axis=2) > 0
    own = targets(config)
    assert len(set(rows.tolist())) < 6, "rows are shared"
    for row, column, examples, tokens in zip(rows, columns, by_example, by_token, strict=True):
        (example,), (place,) = np.nonzero(own == part["targets"][row, column])
        assert np.flatnonzero(examples).tolist() == [example]
        assert np.flatnonzero(tokens).tolist() == sorted([0, *own[example, :place].tolist()])


@unit
def test_targets_are_counted_by_type():
    logits = np.zeros((2, 3, 6), np.float32)
    wanted = np.array([[3, 1, 0], [4, 4, 2]])
    logits[0, 0, 3] = logits[0, 1, 1] = logits[0, 2, 0] = logits[1, 0, 4] = logits[1, 1, 5] = logits[1, 2, 2] = 2.0
    types = np.array([-1, 6, -1, 0, 1, 1], np.int32)  # token 2 is of no type
    sums = jax.jit(sums_of_logits, compiler_options=QUICKLY)(logits, wanted, types, 0.5)
    assert sums.count.tolist() == [1, 2, 0, 0, 0, 0, 1]
    assert sums.correct.tolist() == [1, 1, 0, 0, 0, 0, 1]
    assert float(sums.num_tokens) == 5
    logsumexp = math.log(5 + math.exp(2))
    assert float(sums.cross_entropy) == pytest.approx(5 * logsumexp - 4 * 2.0, rel=1e-6)
    assert float(sums.z_loss) == pytest.approx(5 * 0.5 * logsumexp**2, rel=1e-6)


@unit
@pytest.mark.parametrize("preset", PRESETS)
def test_tokens_are_of_the_types_of_their_events(preset):
    model = PRESETS[preset]
    vocabulary = Vocabulary(model.vocabulary)
    types = types_of_tokens(model.vocabulary, model.network.vocab_size)
    assert EVENT_TYPES[types[EOS_ID]] == "end"
    assert types[[0, 2]].tolist() == [-1, -1]
    events = np.arange(vocabulary.num_classes)
    assert [EVENT_TYPES[t] for t in types[events + 3]] == [event_of(vocabulary, event)[0] for event in events.tolist()]
    assert (types[vocabulary.num_classes + 3 :] == -1).all()


@unit
def test_the_spectrogram_is_computed_of_audio_of_both_types():
    model = dataclasses.replace(MT3, network=dataclasses.replace(MT3.network, input_frames=20))
    config = TrainingConfig("tiny", model=model)
    audio = np.random.default_rng(0).integers(-20000, 20000, (2, model.segment_samples)).astype(np.int16)
    num_frames = np.array([20, 6], np.int32)
    audio[1, 6 * 128 :] = 0
    floats = (audio / 32768).astype(np.float32)
    expected = segment_log_mel(floats, num_frames, model.spectrogram)
    for samples in (audio, floats):
        found = network_input({"audio": jnp.asarray(samples), "num_frames": jnp.asarray(num_frames)}, config)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    assert np.asarray(found[1, 6:] == 0).all()
    product = jax.make_jaxpr(lambda part: network_input(part, config))(
        {"audio": jnp.asarray(audio), "num_frames": jnp.asarray(num_frames)}
    )
    assert "HIGHEST" in str(product), "multiplied in full precision on accelerators"


@unit
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_attention_is_that_of_jax(dtype):
    """And where a query may see nothing, it sees all alike, so that nothing becomes NaN."""
    random = np.random.default_rng(0)
    query, key, value = (jnp.asarray(random.normal(size=(2, 3, 6, 8)), dtype) for _ in range(3))
    mask = jnp.asarray(random.random((2, 1, 6, 6)) < 0.5).at[0, 0, 2].set(False)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def both(query, key, value, seen):
        ours = attention.attention(query, key, value, seen)
        by_place = (x.swapaxes(1, 2) for x in (query, key, value))
        return ours, jax.nn.dot_product_attention(*by_place, mask=seen, scale=1.0).swapaxes(1, 2)

    for seen in (mask, None):
        found, expected = both(query, key, value, seen)
        assert found.dtype == expected.dtype == jnp.dtype(dtype)
        np.testing.assert_allclose(found.astype("float32"), expected.astype("float32"), rtol=0, atol=2e-6)


@unit
def test_fused_attention_is_chosen_where_it_works(monkeypatch):
    class Device:
        compute_capability = "9.0"

    choose = attention.choose_implementation
    assert choose("auto", "bfloat16", 64) == "xla"  # the tests' CPU
    assert choose("cudnn", "bfloat16", 64) == "cudnn"
    monkeypatch.setattr(jax, "devices", lambda: [Device])
    assert choose("auto", "bfloat16", 64) == "cudnn"
    assert choose("xla", "bfloat16", 64) == "xla"
    assert choose("auto", "float32", 64) == "xla"
    assert choose("auto", "bfloat16", 6) == choose("auto", "bfloat16", 256) == "xla"
    for other in ("7.5", "gfx90a"):
        monkeypatch.setattr(Device, "compute_capability", other)
        assert choose("auto", "bfloat16", 64) == "xla"


@unit
def test_the_given_model_stays_as_it_is():
    config = computed(training_config(), dtype="bfloat16", remat=True)
    model = nnx.merge(*params_of(config))
    copy = loss.for_training(model, config)
    assert (copy.encoder.remat, copy.decoder.remat, model.encoder.remat) == (True, True, False)
    assert model.decoder.logits_dense.kernel.dtype == jnp.float32
    assert copy.decoder.logits_dense.kernel.dtype == jnp.bfloat16
    # What flows through the layers is bfloat16 as well; the logits are not.
    part, _ = part_of(config, "packed")
    packing = Packing(*(part[name] for name in PLACES), len(LENGTHS))
    encoded = jax.eval_shape(copy.encode, part["log_mel"].astype("bfloat16"))
    hidden = jax.eval_shape(copy.decode_packed, encoded, part["decoder_inputs"], packing)
    assert encoded.dtype == hidden.dtype == jnp.bfloat16
    assert jax.eval_shape(copy.decoder.logits, hidden).dtype == jnp.float32
