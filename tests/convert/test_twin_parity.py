"""The two networks: the same code but for the frameworks, and the same numbers for weights of any form."""

import ast
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flax")
torch = pytest.importorskip("torch")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from tiny_networks import FORMS, random_arrays, random_log_mel, tiny  # noqa: E402

import mt3jax  # noqa: E402
import mt3torch  # noqa: E402
from mt3core.decoding import Decoding, brevity_penalty  # noqa: E402

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
# The position table: in PyTorch a part of the two stacks that moves with them to a device, in JAX a constant.
ONLY_TORCH = {"restore_positions", "positions"}
# How training computes, which PyTorch's network is not made for; its attention chooses by itself.
ONLY_JAX = {
    ("MultiHeadAttention", "attend_in_tiles"),
    ("Transformer", "decode_packed"),
    ("Encoder", "config"),
    ("Decoder", "config"),
    ("Encoder", "remat"),
    ("Decoder", "remat"),
    ("Decoder", "logit_parts"),
    ("MultiHeadAttention", "implementation"),
    ("MultiHeadAttention", "is_causal"),
    ("Mlp", "joins_gates"),
    ("checkpointed",),
}
ALIASES = {
    "forward": "__call__",
    "dropout_generator": "dropout_key",
    "rngs": None,
    "packing": None,
    "Tensor": "Array",
}


def outline(package):
    """Classes, their methods with arguments, and their attributes, in order, in JAX's words."""
    body = ast.parse((ROOT / package / "model.py").read_text()).body

    def word(name):
        return ALIASES.get(name, name)

    def arguments(function):
        return tuple(word(a.arg) for a in function.args.args if word(a.arg) is not None)

    found = []
    for node in body:
        if isinstance(node, ast.FunctionDef):
            found.append((node.name,))
        if not isinstance(node, ast.ClassDef):
            continue
        for member in node.body:
            if isinstance(member, ast.AnnAssign) and member.target.id not in ONLY_TORCH:
                found.append((node.name, member.target.id, ast.unparse(member.annotation).replace("Tensor", "Array")))
            if isinstance(member, ast.FunctionDef) and member.name not in ONLY_TORCH:
                found.append((node.name, word(member.name), arguments(member), shapes(member)))
                found += [(node.name, name) for name in assigned(member) if word(name) and name not in ONLY_TORCH]
    return [entry for entry in found if entry[:2] not in ONLY_JAX]


def shapes(function):
    """The shape words of arguments and result."""
    notes = [a.annotation for a in function.args.args if a.annotation is not None] + [function.returns]
    texts = [ast.unparse(n) for n in notes if n is not None]
    return tuple(
        text.replace("Tensor", "Array")
        for text in texts
        if "[" in text and any(word in text for word in ("batch", "rows", "examples"))
    )


def assigned(function):
    """Names of the attributes that a method gives `self`, in order."""
    targets = (t for n in ast.walk(function) if isinstance(n, ast.Assign) for t in n.targets)
    return [t.attr for t in targets if isinstance(t, ast.Attribute) and ast.unparse(t.value) == "self"]


def test_both_files_have_the_same_outline():
    # `Dropout` of JAX is in another file, as it knows of packed rows; the other is about faults of PyTorch.
    only_torch = ("Dropout", "needs_contiguous")
    jax_outline, torch_outline = outline("mt3jax"), outline("mt3torch")
    assert jax_outline == [entry for entry in torch_outline if entry[0] not in only_torch]
    assert len(jax_outline) > 40


@pytest.fixture(scope="module", params=FORMS)
def twins(request):
    config, arrays = tiny(request.param), random_arrays(tiny(request.param), seed=3)
    return config, mt3jax.build_model(config, arrays, "cpu"), mt3torch.build_model(config, arrays, "cpu")


def test_encoder_and_logits_agree(twins):
    config, jax_model, torch_model = twins
    log_mel = random_log_mel(config, 3)
    tokens = np.random.default_rng(0).integers(0, config.network.vocab_size, (3, 11))
    with torch.inference_mode():
        torch_encoded = torch_model.encode(torch.from_numpy(log_mel))
        torch_logits = torch_model.decode(torch_encoded, torch.from_numpy(tokens)).numpy()
    jax_encoded = jax.jit(jax_model.encode)(jnp.asarray(log_mel))
    np.testing.assert_allclose(jax_encoded, torch_encoded.numpy(), rtol=0, atol=1e-5)
    jax_logits = np.asarray(jax.jit(jax_model.decode)(jax_encoded, jnp.asarray(tokens)))
    np.testing.assert_allclose(jax_logits, torch_logits, rtol=0, atol=5e-5)
    assert np.abs(jax_logits).max() > 0.5


@pytest.mark.parametrize("options", [("t5x", 1), ("greedy", 1), ("beam", 3)], ids=lambda options: options[0])
def test_both_write_the_same_tokens(options):
    config, arrays = tiny(), random_arrays(tiny(), seed=4)
    log_mel = random_log_mel(config, 8)
    # Twelve tokens: some segments end before, others do not.
    decoding = Decoding(*options, max_tokens=12)
    results = [
        network.generate(network.build_model(config, arrays, "cpu"), log_mel, decoding)
        for network in (mt3jax, mt3torch)
    ]
    for jax_result, torch_result in zip(*results, strict=True):
        assert jax_result.tokens.tolist() == torch_result.tokens.tolist()
        assert jax_result.score == pytest.approx(torch_result.score, abs=1e-4)
        np.testing.assert_allclose(jax_result.log_probabilities, torch_result.log_probabilities, atol=1e-4)


@pytest.mark.parametrize("grammar", [False, True])
@pytest.mark.parametrize("options", [("t5x", 1), ("greedy", 1), ("beam", 1), ("beam", 3)])
def test_the_log_probabilities_of_the_tokens_add_up_to_the_score(options, grammar):
    """Where few lanes are left and tokens are guessed, in lanes freed for others, and where beams change places."""
    config, arrays = tiny(vocab_size=1536), random_arrays(tiny(vocab_size=1536), seed=4)
    log_mel = random_log_mel(config, 9)
    chosen = Decoding(*options, max_tokens=38, grammar=grammar)
    for network, lanes in ((mt3jax, 8), (mt3torch, 4)):
        model = network.build_model(config, arrays, "cpu")
        found = list(network.decoding.generate_stream(model, log_mel, chosen, lanes))
        assert len(found) == 9
        for _, one in found:
            assert one.log_probabilities.dtype == np.float32
            assert one.log_probabilities.shape == one.tokens.shape
            assert (one.log_probabilities <= 1e-6).all()
            penalty = brevity_penalty(chosen.length_penalty, len(one.tokens))
            assert one.score == pytest.approx(one.log_probabilities.astype(float).sum() / penalty, abs=1e-3)
