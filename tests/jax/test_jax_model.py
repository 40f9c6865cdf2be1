"""The Flax network: the original's numbers, and what must hold for networks of any form."""

import functools

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from packed_batches import QUICKLY  # noqa: E402
from tiny_networks import FORMS, random_arrays, tiny  # noqa: E402
from tiny_networks import random_log_mel as random_log_mel_array  # noqa: E402

from mt3core.config.model import MT3, PRESETS, NetworkConfig  # noqa: E402
from mt3core.errors import ModelError, UsageError  # noqa: E402
from mt3core.model.parameters import parameters  # noqa: E402
from mt3jax import Transformer, build_model  # noqa: E402
from mt3jax.loading import choose_device, flatten, nest  # noqa: E402
from mt3jax.model import Dropout, fixed_positions  # noqa: E402

integration = pytest.mark.integration
unit = pytest.mark.unit


@pytest.fixture(scope="module")
def network(golden):
    return golden("network.npz")


@pytest.fixture(scope="module")
def published(published_arrays):
    return build_model(*published_arrays, "cpu")


@pytest.fixture(scope="module")
def encode(published):
    return jax.jit(published.encode)


@pytest.fixture(scope="module")
def encoded(encode, network):
    return encode(network["inputs"])


@pytest.fixture(scope="module")
def decode(published):
    return jax.jit(published.decode)


@pytest.fixture(scope="module")
def logits(decode, encoded, network):
    return np.asarray(decode(encoded, network["decoder_input_ids"]))


@integration
def test_encoder_equals_the_original(encoded, network):
    np.testing.assert_allclose(encoded, network["encoded"], rtol=0, atol=1e-4)


@integration
def test_logits_equal_the_original(logits, network):
    found = logits[network["logits_segment"], network["logits_position"]]
    np.testing.assert_allclose(found, network["logits"], rtol=0, atol=1e-4)
    is_target = network["decoder_target_ids"] > 0
    np.testing.assert_array_equal(logits.argmax(-1)[is_target], network["argmax"][is_target])
    logsumexp = jax.nn.logsumexp(logits, axis=-1)[is_target]
    np.testing.assert_allclose(logsumexp, network["logsumexp"][is_target], rtol=0, atol=1e-4)


@integration
def test_losses_equal_the_original(logits, decode, encoded, network):
    """The training loss: cross entropy + 1e-4 logsumexp^2, summed over the target tokens."""

    def loss(logits, targets, z_weight):
        logsumexp = np.asarray(jax.nn.logsumexp(logits, axis=-1), np.float64)
        chosen = np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return np.sum((logsumexp - chosen + z_weight * logsumexp**2) * (targets > 0))

    targets = network["decoder_target_ids"][:2]
    assert loss(logits[:2], targets, 1e-4) == pytest.approx(network["loss_decoded"], rel=1e-5)
    assert loss(logits[:2], targets, 0.0) == pytest.approx(network["loss_decoded_without_z"], rel=1e-5)
    random = np.asarray(decode(encoded[network["random_segments"]], network["random_decoder_input_ids"]))
    np.testing.assert_allclose(random, network["random_logits"], rtol=0, atol=1e-4)
    assert loss(random, network["random_target_ids"], 1e-4) == pytest.approx(network["loss_random"], rel=1e-5)


@integration
def test_every_encoder_layer_equals_the_original(published, network):
    encoder, off = published.encoder, Dropout(0.0, None)
    rows = network["debug_encoder_positions"]
    x = encoder.continuous_inputs_projection(network["inputs"][:1]) + fixed_positions(MT3.network)[:256]
    found = [x]
    for layer in encoder.layers:
        found.append(layer(found[-1], None, off))
    found.append(encoder.encoder_norm(found[-1]))
    np.testing.assert_allclose(np.stack([x[0, rows] for x in found]), network["debug_encoder"], rtol=0, atol=1e-3)


@integration
def test_every_decoder_layer_equals_the_original(published, network, encoded):
    decoder, off = published.decoder, Dropout(0.0, None)
    rows, tokens = network["debug_decoder_positions"], network["decoder_input_ids"][:1]
    length = tokens.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
    found = [decoder.token_embedder(tokens) + fixed_positions(MT3.network)[:length]]
    for layer in decoder.layers:
        found.append(layer(found[-1], encoded[:1], causal, None, off))
    found.append(decoder.decoder_norm(found[-1]))
    np.testing.assert_allclose(np.stack([x[0, rows] for x in found]), network["debug_decoder"], rtol=0, atol=1e-3)


@integration
def test_position_table_equals_the_original(network):
    table = fixed_positions(MT3.network)
    np.testing.assert_allclose(table[network["position_rows"]], network["position_embedding"], rtol=0, atol=1e-6)


@functools.cache
def model_of(form):
    return build_model(tiny(form), random_arrays(tiny(form)), "cpu")


def random_log_mel(config, batch):
    return jnp.asarray(random_log_mel_array(config, batch))


def tokens_for(config, batch=3, length=9):
    return jnp.asarray(np.random.default_rng(2).integers(0, config.network.vocab_size, (batch, length)), jnp.int32)


@unit
@pytest.mark.parametrize("form", FORMS)
def test_cached_steps_give_the_logits_of_teacher_forcing(form):
    model = model_of(form)
    encoded, tokens = jax.jit(model.encode)(random_log_mel(tiny(form), 3)), tokens_for(tiny(form))
    expected = np.asarray(jax.jit(model.decode)(encoded, tokens))
    step, cache = jax.jit(model.decode_step), model.start_cache(encoded, 12)
    # Rows stand at different positions: row r begins r steps later, and until then writes where it will again.
    for time in range(tokens.shape[1] + 2):
        positions = jnp.clip(time - jnp.arange(3), 0, tokens.shape[1] - 1)
        found, cache = step(tokens[np.arange(3), positions], positions, cache)
        np.testing.assert_allclose(found, expected[np.arange(3), positions], rtol=0, atol=2e-5)


@unit
@pytest.mark.parametrize("form", ["gated", "ungated", "three_gates"])
def test_no_token_sees_later_ones(form):
    """By gradients: no logits depend on later embeddings, and all depend on the earlier ones.

    Not with tied logits, where the rows of the table are the output's too and not places of the input alone.
    """
    model, config = model_of(form), tiny(form)
    graph, state = nnx.split(model)
    encoded = jax.jit(model.encode)(random_log_mel(config, 1))
    # Every token once, so that a row of the table is one place in the sequence.
    tokens = jnp.arange(config.network.vocab_size)[None]

    @jax.jit
    @jax.grad
    def gradient(state, place):
        return (nnx.merge(graph, state).decode(encoded, tokens)[0, place] ** 2).sum()

    for place in (0, 4, 11):
        by_token = gradient(state, place)["decoder"]["token_embedder"]["embedding"][...]
        size = np.abs(np.asarray(by_token)).max(axis=1)
        assert (size[: place + 1] > 0).all()
        assert (size[place + 1 :] == 0).all()


@unit
def test_masks_hide_what_they_name():
    model, config = model_of("gated"), tiny()
    log_mel, tokens = random_log_mel(config, 2), tokens_for(config, 2)
    seen = np.arange(config.network.input_frames) < 4
    changed = jnp.where(seen[:, None], log_mel, 9.0)
    mask = jnp.asarray(seen)[None, None, None]
    encode, decode = jax.jit(model.encode), jax.jit(model.decode)
    encoded, other = encode(log_mel, mask), encode(changed, mask)
    np.testing.assert_allclose(encoded[:, :4], other[:, :4], atol=1e-6)
    assert np.abs(np.asarray(encoded - other)[:, 4:]).max() > 0.1
    cross = [decode(x, tokens, cross_mask=mask) for x in (encoded, other)]
    np.testing.assert_allclose(*cross, atol=1e-5)
    assert np.abs(np.asarray(decode(encoded, tokens) - decode(other, tokens))).max() > 1e-3


@unit
def test_positions_may_be_given():
    """Two short targets in one row, each from position 0 and blind to the other, are as good as two rows."""
    model, config = model_of("gated"), tiny()
    tokens = tokens_for(config, 2, 5)
    decode = jax.jit(model.decode)
    encoded = jnp.repeat(jax.jit(model.encode)(random_log_mel(config, 1)), 2, axis=0)
    apart = np.asarray(decode(encoded, tokens))
    part = np.repeat([0, 1], 5)
    mask = jnp.asarray((part[:, None] == part) & np.tri(10, dtype=bool))[None, None]
    packed = decode(encoded[:1], tokens.reshape(1, 10), jnp.asarray(np.tile(np.arange(5), 2))[None], mask)
    np.testing.assert_allclose(np.asarray(packed)[0], apart.reshape(10, -1), rtol=0, atol=2e-5)


@unit
@pytest.mark.parametrize("shared_axis", [None, 1, 3])
def test_dropout_keeps_the_mean_and_shares_draws(shared_axis):
    x = jnp.ones((20, 15, 10, 8))
    dropped = np.asarray(Dropout(0.25, jax.random.key(0))(x, shared_axis))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    draws = dropped if shared_axis is None else dropped.take(0, axis=shared_axis)
    # Five standard deviations of the share of zeros among independent draws.
    assert abs((draws == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / draws.size)
    for axis in range(4):
        is_shared = (dropped == dropped.take([0], axis=axis)).all()
        assert is_shared == (axis == shared_axis)


@unit
def test_dropout_is_reproducible_by_key_and_off_without():
    config = tiny(dropout_rate=0.5)
    model = build_model(config, random_arrays(config), "cpu")
    log_mel, tokens = random_log_mel(config, 2), tokens_for(config, 2)

    @functools.partial(jax.jit, compiler_options=QUICKLY)
    def run(key):
        encoded = model.encode(log_mel, dropout_key=key)
        return encoded, model.decode(encoded, tokens, dropout_key=key)

    one, again, other, off = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2)), run(None)
    for part in range(2):
        np.testing.assert_array_equal(one[part], again[part])
        assert np.abs(one[part] - other[part]).max() > 0.01
        assert np.abs(one[part] - off[part]).max() > 0.01
    rate_zero = build_model(tiny(dropout_rate=0.0), random_arrays(config), "cpu")
    encoded = jax.jit(rate_zero.encode)(log_mel, dropout_key=jax.random.key(1))
    np.testing.assert_allclose(encoded, off[0], rtol=0, atol=2e-5)


@unit
def test_dropout_draws_anew_at_every_place():
    dropout = Dropout(0.5, jax.random.key(0))
    x = jnp.ones((8, 8))
    assert (np.asarray(dropout(x, None)) != np.asarray(dropout(x, None))).any()


@unit
def test_initial_weights_have_the_original_variances():
    """Variance scaling by fan-in; the queries' is smaller by the head dimension, the embedding's is 1."""
    network = NetworkConfig(num_encoder_layers=1, num_decoder_layers=1)
    model = Transformer(tiny(**{**vars(network), "input_bands": 5}), nnx.Rngs(0))
    weights = flatten(nnx.to_pure_dict(nnx.state(model)))
    attention = "decoder.layers.0.encoder_decoder_attention"
    expected = {
        f"{attention}.query.kernel": 1 / 512 / 64,
        f"{attention}.key.kernel": 1 / 512,
        f"{attention}.value.kernel": 1 / 512,
        f"{attention}.out.kernel": 1 / 384,
        "encoder.layers.0.attention.query.kernel": 1 / 512 / 64,
        "encoder.layers.0.mlp.wi_0.kernel": 1 / 512,
        "encoder.layers.0.mlp.wo.kernel": 1 / 1024,
        "decoder.logits_dense.kernel": 1 / 512,
        "decoder.token_embedder.embedding": 1.0,
    }
    for name, variance in expected.items():
        assert np.var(weights[name]) == pytest.approx(variance, rel=0.03), name
        assert abs(np.mean(weights[name])) < 5 * np.sqrt(variance / weights[name].size), name
    norms = [values for name, values in weights.items() if name.endswith("scale")]
    assert len(norms) == 2 + 3 + 2
    assert all((np.asarray(values) == 1).all() for values in norms)


@unit
@pytest.mark.parametrize("preset", PRESETS)
def test_parameters_are_those_of_the_table(preset):
    config = PRESETS[preset]
    state = nnx.state(nnx.eval_shape(lambda: Transformer(config, nnx.Rngs(0))))
    found = {name: leaf.shape for name, leaf in flatten(nnx.to_pure_dict(state)).items()}
    assert found == {p.flax_name: p.shape for p in parameters(config.network)}


@unit
def test_names_nest_and_flatten():
    flat = {"a.0.kernel": 1, "a.1.kernel": 2, "b": 3}
    assert nest(flat) == {"a": {0: {"kernel": 1}, 1: {"kernel": 2}}, "b": 3}
    assert flatten(nest(flat)) == flat


@unit
def test_weights_that_do_not_fit_are_refused():
    arrays = random_arrays(tiny())
    arrays.pop("decoder.decoder_norm.weight")
    with pytest.raises(ModelError, match=r"decoder\.decoder_norm\.weight"):
        build_model(tiny(), arrays)


@unit
def test_devices_are_chosen_by_name():
    for name in ("abacus", "abacus:1", "cpu:99", "cpu:x"):
        with pytest.raises(UsageError, match=f"'{name}'. Available here: .*cpu"):
            choose_device(name)
    cpu = jax.devices("cpu")[0]
    assert cpu == choose_device("cpu") == choose_device("CPU") == choose_device("cpu:0") == choose_device(cpu)
    assert choose_device() == choose_device(None) == choose_device("AUTO") == jax.devices()[0]
