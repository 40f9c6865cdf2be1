"""Small networks with random weights, quick enough to be computed again and again."""

import dataclasses

import numpy as np

from mt3core.config.model import ModelConfig, NetworkConfig, SpectrogramConfig
from mt3core.model.parameters import parameters

TINY = ModelConfig(
    name="tiny",
    network=NetworkConfig(
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=2,
        head_dim=6,
        emb_dim=8,
        mlp_dim=10,
        vocab_size=13,
        input_frames=7,
        input_bands=5,
        max_target_tokens=20,
        max_positions=40,
    ),
    spectrogram=SpectrogramConfig(mel_bands=5),
)

FORMS = {
    "gated": {},
    "ungated": {"mlp_activations": ("relu",), "num_encoder_layers": 1, "num_decoder_layers": 3},
    "tied": {"logits_via_embedding": True, "mlp_activations": ("silu", "linear")},
    "three_gates": {"mlp_activations": ("gelu", "relu", "linear"), "num_heads": 3, "head_dim": 2},
}


def tiny(form="gated", **changes):
    """The configuration of a tiny network; `changes` of its network come last."""
    return dataclasses.replace(TINY, network=dataclasses.replace(TINY.network, **FORMS[form], **changes))


def random_arrays(config, seed=0):
    """Random weights by PyTorch name, so large that the logits differ clearly from token to token."""
    random = np.random.default_rng(seed)
    return {
        p.torch_name: random.normal(1.0 if len(p.torch_shape) == 1 else 0.0, 0.5, p.torch_shape).astype(np.float32)
        for p in parameters(config.network)
    }


def random_log_mel(config, batch, seed=1):
    network = config.network
    shape = (batch, network.input_frames, network.input_bands)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
