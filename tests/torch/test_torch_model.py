"""The PyTorch network: the original's numbers, and what must hold for networks of any form."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402

from mt3core.config.model import MT3, PRESETS  # noqa: E402
from mt3core.errors import ModelError, UsageError  # noqa: E402
from mt3core.model.parameters import parameters  # noqa: E402
from mt3torch import Transformer, build_model  # noqa: E402
from mt3torch.loading import choose_device  # noqa: E402
from mt3torch.model import fixed_positions  # noqa: E402

integration = pytest.mark.integration
unit = pytest.mark.unit


def tensor(array):
    return torch.from_numpy(np.asarray(array).astype(np.int64 if np.asarray(array).dtype.kind == "i" else np.float32))


@pytest.fixture(scope="module")
def network(golden):
    return golden("network.npz")


@pytest.fixture(scope="module")
def published(published_arrays):
    return build_model(*published_arrays, "cpu")


@pytest.fixture(scope="module")
def encoded(published, network):
    return published.encode(tensor(network["inputs"]))


@pytest.fixture(scope="module")
def logits(published, encoded, network):
    return published.decode(encoded, tensor(network["decoder_input_ids"])).numpy()


@integration
def test_encoder_equals_the_original(encoded, network):
    np.testing.assert_allclose(encoded, network["encoded"], rtol=0, atol=1e-4)


@integration
def test_logits_equal_the_original(logits, network):
    found = logits[network["logits_segment"], network["logits_position"]]
    np.testing.assert_allclose(found, network["logits"], rtol=0, atol=1e-4)
    is_target = network["decoder_target_ids"] > 0
    np.testing.assert_array_equal(logits.argmax(-1)[is_target], network["argmax"][is_target])
    logsumexp = torch.from_numpy(logits).logsumexp(-1).numpy()
    np.testing.assert_allclose(logsumexp[is_target], network["logsumexp"][is_target], rtol=0, atol=1e-4)


@integration
def test_losses_equal_the_original(published, encoded, logits, network):
    """The training loss: cross entropy + 1e-4 logsumexp^2, summed over the target tokens."""

    def loss(logits, targets, z_weight):
        logits = torch.from_numpy(logits).double()
        logsumexp = logits.logsumexp(-1)
        chosen = logits.gather(-1, tensor(targets)[..., None])[..., 0]
        return float(((logsumexp - chosen + z_weight * logsumexp**2) * (tensor(targets) > 0)).sum())

    targets = network["decoder_target_ids"][:2]
    assert loss(logits[:2], targets, 1e-4) == pytest.approx(network["loss_decoded"], rel=1e-5)
    assert loss(logits[:2], targets, 0.0) == pytest.approx(network["loss_decoded_without_z"], rel=1e-5)
    tokens = tensor(network["random_decoder_input_ids"])
    random = published.decode(encoded[tensor(network["random_segments"])], tokens).numpy()
    np.testing.assert_allclose(random, network["random_logits"], rtol=0, atol=2e-4)
    assert loss(random, network["random_target_ids"], 1e-4) == pytest.approx(network["loss_random"], rel=1e-5)


def outputs_of(modules, run):
    """What each module gives, and what the first is given, while `run` runs."""
    found = []
    hooks = [modules[0].register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))]
    hooks += [module.register_forward_hook(lambda _, __, output: found.append(output)) for module in modules]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


@integration
def test_every_encoder_layer_equals_the_original(published, network):
    encoder, rows = published.encoder, network["debug_encoder_positions"]
    found = outputs_of([*encoder.layers, encoder.encoder_norm], lambda: published.encode(tensor(network["inputs"][:1])))
    # One channel reaches 6,000, where 1e-3 are two roundings; builds of PyTorch differ by four.
    np.testing.assert_allclose(np.stack([x[0, rows] for x in found]), network["debug_encoder"], rtol=5e-7, atol=1e-3)


@integration
def test_every_decoder_layer_equals_the_original(published, network, encoded):
    decoder, rows = published.decoder, network["debug_decoder_positions"]
    tokens = tensor(network["decoder_input_ids"][:1])
    found = outputs_of([*decoder.layers, decoder.decoder_norm], lambda: published.decode(encoded[:1], tokens))
    np.testing.assert_allclose(np.stack([x[0, rows] for x in found]), network["debug_decoder"], rtol=0, atol=1e-3)


@integration
def test_position_table_equals_the_original(network, published):
    for table in (fixed_positions(MT3.network), published.encoder.positions, published.decoder.positions):
        np.testing.assert_allclose(table[network["position_rows"]], network["position_embedding"], rtol=0, atol=1e-6)


@functools.cache
def model_of(form):
    return build_model(tiny(form), random_arrays(tiny(form)), "cpu")


def tokens_for(config, batch=3, length=9):
    return torch.from_numpy(np.random.default_rng(2).integers(0, config.network.vocab_size, (batch, length)))


@unit
@pytest.mark.parametrize("form", FORMS)
def test_cached_steps_give_the_logits_of_teacher_forcing(form):
    model = model_of(form)
    encoded, tokens = model.encode(tensor(random_log_mel(tiny(form), 3))), tokens_for(tiny(form))
    expected = model.decode(encoded, tokens)
    cache, rows = model.start_cache(encoded, 12), torch.arange(3)
    # Rows stand at different positions: row r begins r steps later, and until then writes where it will again.
    for time in range(tokens.shape[1] + 2):
        positions = (time - rows).clip(0, tokens.shape[1] - 1)
        found, cache = model.decode_step(tokens[rows, positions], positions, cache)
        np.testing.assert_allclose(found, expected[rows, positions], rtol=0, atol=2e-5)


@unit
@pytest.mark.parametrize("form", ["gated", "ungated", "three_gates"])
def test_no_token_sees_later_ones(form):
    """By gradients: no logits depend on later embeddings, and all depend on the earlier ones.

    Not with tied logits, where the rows of the table are the output's too and not places of the input alone.
    """
    model, config = build_model(tiny(form), random_arrays(tiny(form)), "cpu"), tiny(form)
    table = model.decoder.token_embedder.weight.requires_grad_(True)
    encoded = model.encode(tensor(random_log_mel(config, 1)))
    # Every token once, so that a row of the table is one place in the sequence.
    logits = model.decode(encoded, torch.arange(config.network.vocab_size)[None])
    for place in (0, 4, 11):
        (gradient,) = torch.autograd.grad((logits[0, place] ** 2).sum(), table, retain_graph=True)
        size = gradient.abs().amax(dim=1)
        assert (size[: place + 1] > 0).all()
        assert (size[place + 1 :] == 0).all()


@unit
def test_masks_hide_what_they_name():
    model, config = model_of("gated"), tiny()
    log_mel, tokens = tensor(random_log_mel(config, 2)), tokens_for(config, 2)
    seen = torch.arange(config.network.input_frames) < 4
    changed = torch.where(seen[:, None], log_mel, 9.0)
    mask = seen[None, None, None]
    encoded, other = model.encode(log_mel, mask), model.encode(changed, mask)
    np.testing.assert_allclose(encoded[:, :4], other[:, :4], atol=1e-6)
    assert (encoded - other)[:, 4:].abs().max() > 0.1
    cross = [model.decode(x, tokens, cross_mask=mask) for x in (encoded, other)]
    np.testing.assert_allclose(*cross, atol=1e-5)
    assert (model.decode(encoded, tokens) - model.decode(other, tokens)).abs().max() > 1e-3


@unit
def test_positions_may_be_given():
    """Two short targets in one row, each from position 0 and blind to the other, are as good as two rows."""
    model, config = model_of("gated"), tiny()
    tokens = tokens_for(config, 2, 5)
    encoded = model.encode(tensor(random_log_mel(config, 1)))
    apart = model.decode(encoded.expand(2, -1, -1), tokens)
    part = torch.tensor([0, 1]).repeat_interleave(5)
    mask = ((part[:, None] == part) & torch.ones(10, 10, dtype=torch.bool).tril())[None, None]
    packed = model.decode(encoded, tokens.reshape(1, 10), torch.arange(5).repeat(2)[None], mask)
    np.testing.assert_allclose(packed[0], apart.reshape(10, -1), rtol=0, atol=2e-5)


@unit
def test_dropout_only_with_a_generator_and_by_its_seed():
    model, config = model_of("gated"), tiny(dropout_rate=0.5)
    model = build_model(config, random_arrays(config), "cpu")
    log_mel, tokens = tensor(random_log_mel(config, 2)), tokens_for(config, 2)

    def run(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        encoded = model.encode(log_mel, dropout_generator=generator)
        return model.decode(encoded, tokens, dropout_generator=generator)

    assert torch.equal(run(None), run(None))
    assert torch.equal(run(1), run(1))
    assert not torch.equal(run(1), run(2))
    assert not torch.equal(run(1), run(None))


@unit
@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_with_the_parameters_of_the_table(name):
    with torch.device("meta"):
        model = Transformer(PRESETS[name])
    found = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert found == {p.torch_name: p.torch_shape for p in parameters(PRESETS[name].network)}


@unit
def test_the_published_form_has_as_many_parameters_as_published():
    with torch.device("meta"):
        assert sum(p.numel() for p in Transformer(MT3).parameters()) == 45_896_704


@unit
def test_arrays_must_fit():
    arrays = random_arrays(tiny())
    del arrays["encoder.encoder_norm.weight"]
    arrays["decoder.decoder_norm.weight"] = np.zeros(3, np.float32)
    with pytest.raises(ModelError, match=r"1 missing: encoder.encoder_norm.weight.*decoder_norm.weight \(is \(3,\)"):
        build_model(tiny(), arrays, "cpu")


@unit
def test_the_network_does_not_change_with_the_given_arrays():
    arrays = random_arrays(tiny())
    model, log_mel = build_model(tiny(), arrays, "cpu"), tensor(random_log_mel(tiny(), 1))
    before = model.encode(log_mel)
    for array in arrays.values():
        array[:] = 0
    assert torch.equal(model.encode(log_mel), before)


@unit
def test_devices_are_chosen_by_name():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == choose_device("CPU") == choose_device(" Cpu ") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")
    assert choose_device() == choose_device(None) == choose_device("Auto") == choose_device("auto")
    for name in ("abacus", "meta"):
        with pytest.raises(UsageError, match=r"Available here: .*cpu"):
            choose_device(name)
