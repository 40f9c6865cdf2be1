"""What a caller has set up in PyTorch changes nothing about the notes."""

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from small_models import RATE_HZ, save_model  # noqa: E402

from mt3core.decoding import Decoding  # noqa: E402
from mt3torch import Transcriber, generate, load_model, one_token, tuning  # noqa: E402

pytestmark = pytest.mark.unit

METHODS = [Decoding("greedy", max_tokens=24), Decoding("beam", num_beams=2, max_tokens=24)]


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_model):
    return save_model(tmp_path_factory.mktemp("models") / "tiny", tiny_model)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(0).normal(scale=0.1, size=6 * RATE_HZ).astype(np.float32)


@pytest.fixture(scope="module")
def expected(model, samples):
    return [transcribe(model, samples, decoding) for decoding in METHODS]


def transcribe(model, samples, decoding):
    result = Transcriber.from_pretrained(model, device="cpu", decoding=decoding).transcribe((samples, RATE_HZ))
    return [segment.tokens for segment in result.segments]


@contextlib.contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(name):
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),  # what is made there has no values
    "device block": lambda: torch.device("meta"),
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_settings_change_no_token(setting, model, samples, expected):
    with SETTINGS[setting]():
        found = [transcribe(model, samples, decoding) for decoding in METHODS]
    assert found == expected
    assert max(map(len, expected[0])) > 1  # random weights do write something


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_measured_first_can_be_measured(setting, model, samples, expected, tmp_path, monkeypatch):
    """Wider networks are, by the first transcriber on a machine."""
    monkeypatch.setattr(tuning, "LEAST_WIDTH", 1)
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    before = one_token.compiled()
    one_token.compiled.cache_clear()
    with SETTINGS[setting]():
        assert transcribe(model, samples, METHODS[0]) == expected[0]
    assert len(tuning.known_measurements()) == 1
    assert type(one_token.compiled()) is type(before)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_may_change_between_loading_and_transcribing(setting, model, samples, expected):
    """Also within a stream: it is read by a caller whose settings hold again between two segments."""
    with SETTINGS[setting]():
        transcriber = Transcriber.from_pretrained(model, device="cpu", decoding=METHODS[0])
    assert [one.tokens for one in transcriber.transcribe((samples, RATE_HZ)).segments] == expected[0]
    transcriber = Transcriber.from_pretrained(model, device="cpu", decoding=METHODS[0])
    with SETTINGS[setting]():
        assert [one.tokens for one in transcriber.transcribe((samples, RATE_HZ)).segments] == expected[0]


@pytest.mark.parametrize("setting", SETTINGS)
def test_generate_takes_tensors_of_any_kind(setting, model):
    network = load_model(model, "cpu")
    shape = (2, network.config.network.input_frames, network.config.spectrogram.mel_bands)
    log_mel = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = [one.tokens.tolist() for one in generate(network, log_mel, METHODS[0])]
    with SETTINGS[setting]():
        for given in (log_mel, log_mel.numpy(), log_mel.double(), log_mel.clone().requires_grad_()):
            assert [one.tokens.tolist() for one in generate(network, given, METHODS[0])] == expected


def test_settings_are_left_as_they_were(model, samples):
    with default_dtype(torch.float64), torch.autocast("cpu", dtype=torch.bfloat16), torch.enable_grad():
        transcribe(model, samples, METHODS[0])
        assert torch.get_default_dtype() == torch.float64
        assert torch.is_autocast_enabled("cpu")
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_another_decoding_shares_weights_and_where_it_can_the_engine(model, samples):
    with contextlib.closing(Transcriber.from_pretrained(model, device="cpu", decoding=Decoding(grammar=True))) as usual:
        expected = usual.transcribe((samples, RATE_HZ)).notes
        overlapping = usual.with_decoding(Decoding(grammar=True, overlap=2))
        drums = usual.with_decoding(Decoding(grammar=True, programs=()))
        assert {overlapping._stepper, drums._stepper} == {usual._stepper}
        assert overlapping._current_engine() is usual._current_engine()
        assert drums._current_engine() is not usual._current_engine()
        fresh = Transcriber(usual.model, Decoding(grammar=True, overlap=2))
        with contextlib.closing(fresh):
            assert overlapping.transcribe((samples, RATE_HZ)).segments == fresh.transcribe((samples, RATE_HZ)).segments
        for one in (overlapping, drums):
            one.close()
        assert usual._current_engine().is_open
        assert usual.transcribe((samples, RATE_HZ)).notes == expected
