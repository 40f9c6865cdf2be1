"""What goes wrong on accelerators only, seen where there are none: in short numbers and in the lowered program."""

import functools
import re

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("flax")

import jax.numpy as jnp  # noqa: E402
import training_runs  # noqa: E402
from packed_batches import QUICKLY  # noqa: E402

from mt3core.config.model import MT3, ModelConfig, NetworkConfig, SpectrogramConfig  # noqa: E402
from mt3core.config.training import BatchConfig, ComputeConfig, LossConfig, TrainingConfig  # noqa: E402
from mt3core.spectrogram import hann_window, log_mel, mel_matrix  # noqa: E402
from mt3jax.loading import (  # noqa: E402
    flatten,
    given_params,
    network,
)
from mt3jax.packing import Dropout  # noqa: E402
from mt3jax.products import take_rows  # noqa: E402
from mt3jax.row_packing import pack, rows_needed  # noqa: E402
from mt3jax.training.step.loss import loss_sums  # noqa: E402
from mt3jax.training.step.sharding import make_mesh  # noqa: E402
from mt3jax.training.step.state import abstract_params, abstract_state  # noqa: E402
from mt3jax.training.step.train_step import make_train_step  # noqa: E402

pytestmark = pytest.mark.unit

# Large enough that a sum over a common token has hundreds of addends, each of a thousandth of it.
NETWORK = NetworkConfig(
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    head_dim=32,
    emb_dim=64,
    mlp_dim=128,
    mlp_activations=("relu",),
    vocab_size=64,
    input_frames=32,
    input_bands=32,
    max_target_tokens=128,
    max_positions=128,
)
MODEL = ModelConfig("short_numbers", NETWORK, SpectrogramConfig(mel_bands=32))


def part_with_common_tokens(num_examples=64):
    """3,500 tokens distributed as in music: a fifth of them are the same one."""
    random = np.random.default_rng(0)
    lengths = random.integers(8, 100, num_examples)
    tokens = np.minimum(random.geometric(0.2, (num_examples, NETWORK.max_target_tokens)), NETWORK.vocab_size - 1)
    targets = np.where(np.arange(NETWORK.max_target_tokens) < lengths[:, None], tokens, 0)
    rows = rows_needed(lengths, 1, NETWORK.max_target_tokens, 32)
    log_mel = random.normal(size=(num_examples, NETWORK.input_frames, NETWORK.input_bands))
    return {"log_mel": log_mel.astype(np.float32), **pack(targets, 1, rows, 32)}


def test_gradients_in_bfloat16_are_those_of_float32():
    """Of every parameter within what eight bits allow: where many are added up, they are added in more."""
    params = given_params(MODEL, training_runs.initial_arrays(MODEL))
    part = jax.tree.map(jnp.asarray, part_with_common_tokens())

    def gradients(dtype):
        compute = ComputeConfig(dtype=dtype)
        config = TrainingConfig("test", MODEL, batch=BatchConfig(), loss=LossConfig(normalise="sum"), compute=compute)

        @functools.partial(jax.jit, compiler_options=QUICKLY)
        @jax.grad
        def run(params):
            return loss_sums(network(MODEL, params), part, config).loss

        return {name: np.asarray(array) for name, array in flatten(run(params)).items()}

    expected, found = gradients("float32"), gradients("bfloat16")
    errors = {name: np.linalg.norm(found[name] - array) / np.linalg.norm(array) for name, array in expected.items()}
    assert len(errors) == 26
    assert max(errors.values()) < 0.02, errors


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_gradient_is_scattered(dtype):
    """GPUs add to the same place one after the other, and TPUs to any."""
    config = training_runs.training_config(0.1, compute={"dtype": dtype})
    mesh = make_mesh(ComputeConfig(), jax.devices()[:1])
    batch = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in training_runs.step_batch(config, 0, mesh).items()
    }
    text = make_train_step(config, mesh).lower(abstract_state(config, mesh), batch).as_text()
    assert text.count("stablehlo.gather") > 3
    assert "scatter" not in text


def test_fused_attention_is_told_which_masks_are_causal(monkeypatch):
    """The decoder's own, beside the mask that keeps the examples of a row apart."""
    fused = "jax._src.cudnn.fused_attention_stablehlo"
    monkeypatch.setattr(f"{fused}.check_cudnn_version", lambda: 91002)
    monkeypatch.setattr(f"{fused}.check_compute_capability", lambda *given: True)
    compute = ComputeConfig(dtype="bfloat16", attention="cudnn", data=1)
    config = TrainingConfig("test", MODEL, batch=BatchConfig(), compute=compute)
    part = {name: jnp.asarray(array) for name, array in part_with_common_tokens(8).items()}

    def loss(params):
        return loss_sums(network(MODEL, params), part, config).loss

    traced = jax.jit(jax.grad(loss)).trace(abstract_params(MODEL))
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"@__cudnn\$(\w+).*?mask_type[^A-Z]+([A-Z_]+)", text)
    forward = [call for call in calls if "Backward" not in call[0]]
    assert sorted(forward) == [
        ("fmhaScaleBiasSoftmax", "CAUSAL"),
        ("fmhaSoftmax", "NO_MASK"),
        ("fmhaSoftmax", "NO_MASK"),
    ]
    assert len(calls) == 6


def test_products_of_the_log_mel_may_be_as_short_as_what_follows():
    """In TF32, the coarsest of `high`: sums of nothing negative stay far closer than the rounding to bfloat16."""
    samples = np.random.default_rng(0).normal(0, 0.1, (3, 64 * 128)).astype(np.float32)
    samples[1] *= 1e-4
    samples[2] = np.sin(np.arange(64 * 128) * 0.3)
    config = MT3.spectrogram
    expected = log_mel(samples, config)

    def to_tf32(array):
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) + 0x1000 & 0xFFFFE000).view(np.float32)

    frames = np.lib.stride_tricks.sliding_window_view(np.pad(samples, ((0, 0), (0, 2048))), 2048, axis=1)[:, ::128][
        :, :64
    ]
    magnitude = np.abs(np.fft.rfft(frames * hann_window(2048))).astype(np.float32)
    mel = to_tf32(magnitude) @ to_tf32(mel_matrix(config))
    found = np.log(np.where(mel > 0, mel, config.zero_replacement))
    error = np.abs(found - expected).max()
    rounding = np.abs(np.asarray(jnp.asarray(expected, jnp.bfloat16), np.float32) - expected).max()
    assert error < 1e-3 < rounding / 5


def test_rows_are_taken_as_by_number():
    random = np.random.default_rng(0)
    table, weights = random.normal(size=(5, 2, 3)), random.normal(size=(4, 6, 2, 3))
    numbers = random.integers(0, 4, (4, 6))
    with jax.enable_x64(True):
        found, gradient = jax.value_and_grad(lambda t: jnp.sum(take_rows(t, numbers) * weights))(jnp.asarray(table))
        by_jax = jax.grad(lambda t: jnp.sum(t[numbers] * weights))(jnp.asarray(table))
    assert float(found) == pytest.approx((table[numbers] * weights).sum(), rel=1e-12)
    np.testing.assert_allclose(gradient, by_jax, rtol=0, atol=1e-12)
    assert (np.asarray(gradient[4]) == 0).all()


def test_many_short_numbers_are_added_up_in_long_ones():
    gradient = jax.grad(lambda table: jnp.sum(take_rows(table, jnp.zeros(3000, int))))(jnp.ones((2, 4), jnp.bfloat16))
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_allclose(gradient.astype("float32"), [[3000] * 4, [0] * 4], rtol=2**-8)


def test_dropout_keeps_the_mean_in_bfloat16():
    """Rounded once: one divisor of 0.9 would be 0.8984 in bfloat16."""
    kept = Dropout(0.1, jax.random.key(0))(jnp.full((100, 100), 9.0, jnp.bfloat16), None)
    assert set(np.unique(kept.astype("float32"))) == {0.0, 10.0}
