"""The gradients of both networks: torch's autograd and `jax.grad` in float64, for every parameter."""

import numpy as np
import pytest

pytest.importorskip("flax")
torch = pytest.importorskip("torch")

import jax  # noqa: E402
from flax import nnx  # noqa: E402
from packed_batches import LENGTHS, computed, loss_and_gradients, part_of, training_config, weights_of  # noqa: E402
from packed_torch import PackedTransformer, Packing  # noqa: E402

from mt3core.model.parameters import parameters  # noqa: E402
from mt3jax.loading import flatten  # noqa: E402
from mt3jax.row_packing import PLACES  # noqa: E402

pytestmark = pytest.mark.unit


def torch_loss_and_gradients(config, form):
    """The loss written out, all logits at once, and gradients by PyTorch name."""
    model = PackedTransformer(config.model).double()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in weights_of(config).items()})
    part, num_groups = part_of(config, form)
    part = {name: torch.from_numpy(np.array(array)) for name, array in part.items()}
    packing = Packing(*(part[name] for name in PLACES), len(LENGTHS), num_groups)
    encoded = model.encode(part["log_mel"].double())
    logits = model.decoder.logits(model.decode_packed(encoded, part["decoder_inputs"], packing))
    is_target = part["targets"] > 0
    logits, targets = logits[is_target], part["targets"][is_target].long()
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss = loss + config.loss.z_loss * logits.logsumexp(-1).square().sum()
    loss.backward()
    return loss.item(), {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(("form", "layout"), [("gated", "groups"), ("tied", "padded")])
def test_both_networks_have_the_same_gradients(form, layout):
    config = training_config(form, dropout_rate=0.0)
    with jax.enable_x64(True):
        config64 = computed(config, dtype="float64")
        sums, gradients = loss_and_gradients(config64, layout, dtype=np.float64)
        gradients = {name: np.asarray(array) for name, array in flatten(nnx.to_pure_dict(gradients)).items()}
        loss = float(sums.loss)
    torch_loss, torch_gradients = torch_loss_and_gradients(config, layout)
    assert loss == pytest.approx(torch_loss, rel=1e-11)
    table = parameters(config.model.network)
    assert len(table) == len(gradients) == len(torch_gradients)
    for parameter in table:
        expected = parameter.flip(torch_gradients[parameter.torch_name])
        found = gradients[parameter.flax_name]
        assert found.dtype == np.float64
        assert np.abs(expected).max() > 0, parameter.path
        assert np.abs(found - expected).max() < 1e-9 * np.abs(expected).max(), parameter.path
