"""Update rules, learning rates and averages against independent references."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

from mt3core.config.training import OptimizerConfig, TrainingConfig
from mt3jax.training.step.optimizer import apply_directions, learning_rate, make_optimizer, update_average

pytestmark = pytest.mark.unit

# One that is factored, wide and tall and square, and ones that are not: too small, a vector.
SHAPES = {"wide": (128, 256), "tall": (200, 130), "square": (128, 128), "narrow": (300, 100), "scale": (150,)}
SHAPES |= {"another_square": (128, 128), "another_scale": (150,)}  # which are updated together
STEPS = 5


def draw(seed, scale=1.0):
    random = np.random.default_rng(seed)
    return {name: (scale * random.standard_normal(shape)).astype(np.float32) for name, shape in SHAPES.items()}


def gradients(step):
    # Of very different sizes, so that clipping to a root mean square of 1 takes part; rows and columns differ, too.
    found = draw(100 + step, 10.0 ** (step - 3))
    return {name: array * np.linspace(0.1, 3, array.shape[-1], dtype=np.float32) for name, array in found.items()}


def run(config, params, rates):
    """Parameters after every step."""
    optimizer = make_optimizer(config)
    params = jax.tree.map(jnp.asarray, params)
    opt_state = optimizer.init(params)
    results = []

    @jax.jit
    def update(params, opt_state, gradient, rate):
        directions, opt_state = optimizer.update(gradient, opt_state, params)
        return apply_directions(params, directions, rate), opt_state

    for step, rate in enumerate(rates):
        params, opt_state = update(params, opt_state, gradients(step), rate)
        results.append(jax.tree.map(np.asarray, params))
    return results


def assert_close(found, expected, start):
    """Of what has changed since the start, one part in 10,000: parameters alone would hide an update's error."""
    for name in SHAPES:
        change = np.abs(np.asarray(expected[name], np.float64) - start[name]).max()
        assert np.abs(found[name] - expected[name]).max() < 1e-4 * change + 1e-7 * np.abs(start[name]).max(), name


def paper_adafactor(params, rates):
    """Algorithms 4 and 5 of Shazeer and Stern (2018) with relative steps, in float64."""
    params = {name: array.astype(np.float64) for name, array in params.items()}
    second, results = {}, []
    for step, rate in enumerate(rates, start=1):
        decay = 1.0 - step**-0.8
        for name, gradient in gradients(step - 1).items():
            squares = gradient.astype(np.float64) ** 2 + 1e-30
            if min(squares.shape) >= 128 and squares.ndim == 2:
                rows, columns = second.get(name, (0.0, 0.0))
                rows = decay * rows + (1 - decay) * squares.sum(1)
                columns = decay * columns + (1 - decay) * squares.sum(0)
                second[name] = rows, columns
                moment = np.outer(rows, columns) / rows.sum()
            else:
                moment = second[name] = decay * second.get(name, 0.0) + (1 - decay) * squares
            update = gradient / np.sqrt(moment)
            update /= max(1.0, np.sqrt(np.mean(update**2)))
            size = max(1e-3, np.sqrt(np.mean(params[name] ** 2)))
            params[name] = params[name] - rate * size * update
        results.append(dict(params))
    return results


def test_adafactor_is_the_papers():
    start = draw(0) | {"scale": np.full(150, 1e-5, np.float32)}  # below the least scale
    rates = [0.0, 0.01, 0.02, 0.02, 0.01]
    found, expected = run(OptimizerConfig(), start, rates), paper_adafactor(start, rates)
    assert all((found[0][name] == start[name]).all() for name in SHAPES)
    for step in range(1, STEPS):
        assert_close(found[step], expected[step], start)


def test_adafactor_is_torchs():
    torch = pytest.importorskip("torch")
    start = {name: array for name, array in draw(1).items() if name in ("wide", "tall", "square", "scale")}
    weights = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    # Torch's takes min(rate, 1 / sqrt(step)) and factors all matrices; its epsilons are the paper's in reverse order.
    reference = torch.optim.Adafactor(weights.values(), lr=0.01, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0)
    for step in range(STEPS):
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradients(step)[name])
        reference.step()
    found = run(OptimizerConfig(), draw(1), [0.01] * STEPS)[-1]
    for name, weight in weights.items():
        expected = weight.detach().numpy()
        change = np.abs(expected - start[name]).max()
        assert np.abs(found[name] - expected).max() < 1e-4 * change, name


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adamw_is_torchs(weight_decay):
    torch = pytest.importorskip("torch")
    start = draw(2)
    config = OptimizerConfig(kind="adamw", adam_b1=0.8, adam_b2=0.95, adam_epsilon=1e-7, weight_decay=weight_decay)
    weights = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    groups = [
        {"params": [weight for weight in weights.values() if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights.values() if weight.ndim == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.8, 0.95), eps=1e-7)
    rates = [0.01, 0.02, 0.03, 0.02, 0.01]
    found = run(config, start, rates)
    for step, rate in enumerate(rates):
        for group in reference.param_groups:
            group["lr"] = rate
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradients(step)[name])
        reference.step()
        assert_close(found[step], {name: weight.detach().numpy() for name, weight in weights.items()}, start)


# Two layers' matrices, the two tables of tokens and a norm's scale, by the names that Muon's choice goes by.
NESTED = {
    "decoder": {"layers": {0: {"mlp": {"wi_0": {"kernel": (24, 40)}, "wo": {"kernel": (40, 24)}}}},
                "token_embedder": {"embedding": (30, 24)}, "logits_dense": {"kernel": (24, 30)},
                "decoder_norm": {"scale": (24,)}},
}  # fmt: skip


def draw_nested(seed):
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: random.standard_normal(shape).astype(np.float32), NESTED, is_leaf=lambda leaf: type(leaf) is tuple
    )


def test_muon_is_optaxs_with_tables_and_scales_left_to_adamw():
    config = OptimizerConfig(kind="muon", muon_momentum=0.9, adam_b1=0.8, adam_b2=0.95, adam_epsilon=1e-7)
    start, rate = draw_nested(0), 0.01
    chosen = optax.contrib.MuonDimensionNumbers()
    layers = {0: {"mlp": {"wi_0": {"kernel": chosen}, "wo": {"kernel": chosen}}}}
    left = {"token_embedder": {"embedding": None}, "logits_dense": {"kernel": None}, "decoder_norm": {"scale": None}}
    reference = optax.contrib.muon(
        rate, beta=0.9, eps=1e-7, adam_b1=0.8, adam_b2=0.95, consistent_rms=0.2,
        muon_weight_dimension_numbers={"decoder": {"layers": layers, **left}},
    )  # fmt: skip
    ours = make_optimizer(config)
    params, expected = start, start
    state, reference_state = ours.init(params), reference.init(expected)
    update, reference_update = jax.jit(ours.update), jax.jit(reference.update)
    for step in range(3):
        gradient = draw_nested(10 + step)
        directions, state = update(gradient, state, params)
        params = apply_directions(params, directions, rate)
        updates, reference_state = reference_update(gradient, reference_state, expected)
        expected = optax.apply_updates(expected, updates)
    for path, array in jax.tree_util.tree_flatten_with_path(expected)[0]:
        found = functools.reduce(lambda tree, part: tree[part.key], path, params)
        np.testing.assert_allclose(found, array, rtol=1e-6, atol=1e-7, err_msg=str(path))


def test_muon_orthogonalises_the_layers_only():
    """Judged by singular values: those of a layer's first direction are about equal, those of a table's are not."""
    params, gradient = draw_nested(1), draw_nested(2)
    optimizer = make_optimizer(OptimizerConfig(kind="muon"))
    directions, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)

    def spread(array):
        values = np.linalg.svd(np.asarray(array, np.float64), compute_uv=False)
        return values.max() / values.min()

    decoder = directions["decoder"]
    for matrix in (decoder["layers"][0]["mlp"]["wi_0"]["kernel"], decoder["layers"][0]["mlp"]["wo"]["kernel"]):
        assert spread(matrix) < 2.0
        assert np.sqrt(np.mean(np.square(matrix))) == pytest.approx(0.2, rel=0.2)
    for name, part in (("token_embedder", "embedding"), ("logits_dense", "kernel")):
        assert spread(decoder[name][part]) > 5.0
        sizes = np.abs(decoder[name][part])  # AdamW's first direction is the gradient's sign, times a constant
        np.testing.assert_allclose(sizes, sizes[0, 0], rtol=1e-3)


def test_muon_decays_matrices_and_leaves_scales():
    params, gradient = draw_nested(3), jax.tree.map(np.zeros_like, draw_nested(3))
    optimizer = make_optimizer(OptimizerConfig(kind="muon", weight_decay=0.1))
    directions, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    decoder = directions["decoder"]
    embedding = params["decoder"]["token_embedder"]["embedding"]
    np.testing.assert_allclose(decoder["token_embedder"]["embedding"], 0.1 * embedding, rtol=1e-6)
    assert not np.asarray(decoder["decoder_norm"]["scale"]).any()


def test_global_norm_is_clipped_before_the_statistics():
    torch = pytest.importorskip("torch")
    clipped = OptimizerConfig(kind="adamw", clip_norm=1.0, adam_epsilon=1e-3)
    start = draw(3)
    weights = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.items()}
    reference = torch.optim.AdamW(weights.values(), lr=0.01, betas=(0.9, 0.98), eps=1e-3, weight_decay=0.0)
    for step in range(STEPS):
        for name, weight in weights.items():
            weight.grad = torch.tensor(gradients(step)[name])
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        reference.step()
    found = run(clipped, start, [0.01] * STEPS)[-1]
    assert_close(found, {name: weight.detach().numpy() for name, weight in weights.items()}, start)


def rates_of(steps, num_steps=101, **changes):
    config = TrainingConfig("test", num_steps=num_steps, optimizer=OptimizerConfig(**changes))
    return [float(learning_rate(config)(jnp.int32(step))) for step in steps]


def test_learning_rates():
    published = rates_of([0, 1, 500, 1000, 999_999], num_steps=1_000_000)
    np.testing.assert_allclose(published, [0.0, 1e-6, 5e-4, 1e-3, 1e-3], rtol=1e-6)
    cosine = rates_of([0, 5, 10, 55, 100, 1000], learning_rate=2.0, schedule="cosine", warmup_steps=10, end_factor=0.1)
    np.testing.assert_allclose(cosine, [0.0, 1.0, 2.0, 1.1, 0.2, 0.2], rtol=1e-5)
    rsqrt = rates_of([5, 10, 40, 1000], learning_rate=2.0, schedule="rsqrt", warmup_steps=10)
    np.testing.assert_allclose(rsqrt, [1.0, 2.0, 1.0, 0.2], rtol=1e-5)
    without_warmup = [
        rates_of([0, 1], schedule=schedule, warmup_steps=0)[0] for schedule in ("constant", "cosine", "rsqrt")
    ]
    np.testing.assert_allclose(without_warmup, 1e-3, rtol=1e-6)


def test_average_of_parameters():
    average, series = 1.0, [2.0, 3.0, 5.0]
    for step, value in enumerate(series):
        average = update_average({"a": jnp.float32(average)}, {"a": jnp.float32(value)}, 0.15, step)["a"]
    expected = 1.0
    for keep, value in zip((1 / 10, 0.15, 0.15), series, strict=True):
        expected = keep * expected + (1 - keep) * value
    np.testing.assert_allclose(float(average), expected, rtol=1e-6)


def test_rules_of_the_configuration_are_all_known():
    kinds = dataclasses.replace(OptimizerConfig(), kind="adamw"), OptimizerConfig()
    moments = [sum(leaf.size for leaf in jax.tree.leaves(make_optimizer(kind).init(draw(4)))) for kind in kinds]
    assert moments[0] > 2 * moments[1]  # Adafactor keeps rows and columns
