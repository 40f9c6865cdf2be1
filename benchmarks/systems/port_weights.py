"""Our weights in the form of the PyTorch ports, for the systems that are built on them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from mt3core.config.model import ModelConfig
from mt3core.errors import ModelError
from mt3core.files import atomic_output


def port_weights(model: str, cache: Path) -> Path:
    """A folder with `mt3.pth` and `config.json` in the form of mt3-infer's mt3_pytorch; made once per model.

    Raises `ModelError` for a model that cannot be read or that the ports do not support.
    """
    from mt3convert.sources import load
    from mt3convert.torch_port import write_port

    folder = cache / "port_weights" / hashlib.sha256(str(Path(model).resolve()).encode()).hexdigest()[:10]
    if not (folder / "config.json").exists():
        weights = load(model)
        settings = _port_settings(weights.config)
        write_port(folder / "mt3.pth", weights.config, weights.arrays)
        with atomic_output(folder / "config.json") as temporary:
            temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return folder


def _port_settings(config: ModelConfig) -> dict[str, object]:
    """The network as fields of Hugging Face's T5Config."""
    network = config.network
    if network.mlp_activations != ("gelu", "linear") or network.logits_via_embedding:
        raise ModelError("The ports support only networks with a gated GELU and a separate output layer.")
    return {
        "d_model": network.emb_dim,
        "d_kv": network.head_dim,
        "d_ff": network.mlp_dim,
        "num_layers": network.num_encoder_layers,
        "num_decoder_layers": network.num_decoder_layers,
        "num_heads": network.num_heads,
        "vocab_size": network.vocab_size,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": network.dropout_rate,
        "layer_norm_epsilon": 1e-6,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
        "is_encoder_decoder": True,
        "use_cache": True,
    }
