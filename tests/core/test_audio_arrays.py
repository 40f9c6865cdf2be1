"""Arrays as audio: of any library, byte order and layout, and what is refused with its likely cause."""

import array
import sys

import numpy as np
import pytest

from mt3core.audio.arrays import unwrapped
from mt3core.audio.load import load_audio
from mt3core.errors import AudioError

pytestmark = pytest.mark.unit

RATE_HZ = 16_000  # nothing is resampled
RNG = np.random.default_rng(0)
INTEGERS = RNG.integers(-(2**15), 2**15, 3000).astype(np.int16)
SAMPLES = (INTEGERS / 2**15).astype(np.float32)


def load(samples, rate_hz=RATE_HZ):
    return load_audio((samples, rate_hz))


@pytest.mark.parametrize(
    "dtype", ["<f4", ">f4", "<f8", ">f8", "<i2", ">i2", "<i4", ">i4", "u1", "<f2", ">f2", np.longdouble], ids=str
)
def test_every_byte_order_and_type(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        given, tolerance = SAMPLES.astype(dtype), 5e-4 if dtype.itemsize == 2 else 0
    else:
        bits = 8 * dtype.itemsize
        given = np.rint(SAMPLES.astype(np.float64) * 2 ** (bits - 1)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        given, tolerance = (given + 128 * (bits == 8)).astype(dtype), 2.0 ** (2 - bits)
    found = load(given)
    assert found.dtype == np.float32
    assert found.dtype.isnative
    np.testing.assert_allclose(found, SAMPLES, atol=tolerance, rtol=0)


def test_every_layout_in_memory():
    expected = load(SAMPLES)
    stereo = np.stack([SAMPLES, SAMPLES], axis=1)
    frozen = SAMPLES.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + SAMPLES.tobytes(), np.uint8)[1:].view(np.float32)
    for given in (
        frozen,
        np.repeat(SAMPLES, 2)[::2],
        SAMPLES[::-1].copy()[::-1],
        stereo,
        np.asfortranarray(stereo),
        np.stack([SAMPLES, SAMPLES]).T,
        unaligned,
        SAMPLES[:, None],
        SAMPLES.tolist(),
        array.array("h", INTEGERS.tolist()),
        memoryview(SAMPLES),
    ):
        np.testing.assert_array_equal(load(given), expected)
    np.testing.assert_array_equal(frozen, SAMPLES)


@pytest.mark.parametrize("rate", [16000, 16000.0, np.int32(16000), np.float64(16000), np.array(16000)], ids=repr)
def test_rates_of_any_kind(rate):
    np.testing.assert_array_equal(load(SAMPLES, rate), SAMPLES)


def test_tensors():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(SAMPLES.copy())
    rate = torch.tensor(RATE_HZ)
    with torch.inference_mode():
        of_inference = tensor.clone()
    for given in (tensor, tensor.clone().requires_grad_(), tensor.requires_grad_() * 1, of_inference, tensor.double()):
        np.testing.assert_array_equal(load(given, rate), SAMPLES)
    np.testing.assert_array_equal(load(torch.nn.Parameter(tensor.detach().clone())), SAMPLES)
    np.testing.assert_array_equal(load(torch.stack([tensor, tensor]).T), SAMPLES)
    np.testing.assert_allclose(load(tensor.bfloat16()), SAMPLES, atol=1 / 128)
    np.testing.assert_array_equal(load(tensor.bfloat16()), tensor.detach().bfloat16().float().numpy())
    np.testing.assert_array_equal(load(tensor.half()), tensor.detach().half().float().numpy())
    np.testing.assert_array_equal(load(torch.from_numpy(INTEGERS)), SAMPLES)
    assert tensor.requires_grad  # the caller's tensor is as it was


def test_tensors_of_another_device():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    np.testing.assert_array_equal(load(torch.from_numpy(SAMPLES).to("cuda")), SAMPLES)


def test_arrays_of_jax():
    jnp = pytest.importorskip("jax.numpy")
    np.testing.assert_array_equal(load(jnp.asarray(SAMPLES), jnp.asarray(RATE_HZ)), SAMPLES)
    np.testing.assert_allclose(load(jnp.asarray(SAMPLES, jnp.bfloat16)), SAMPLES, atol=1 / 128)
    np.testing.assert_array_equal(load(jnp.asarray(INTEGERS)), SAMPLES)


def test_the_form_of_hugging_face():
    for given in (
        {"array": SAMPLES, "sampling_rate": RATE_HZ},
        {"path": "song.wav", "array": SAMPLES.tolist(), "sampling_rate": RATE_HZ},
        {"raw": SAMPLES, "sampling_rate": RATE_HZ},
        {"array": np.stack([SAMPLES, SAMPLES]), "sampling_rate": RATE_HZ},  # channels come first there
    ):
        np.testing.assert_array_equal(load_audio(given), SAMPLES)
    assert unwrapped({"bytes": b"RIFF", "path": None}) == b"RIFF"
    assert unwrapped({"bytes": None, "path": "song.wav"}) == "song.wav"


@pytest.mark.parametrize(
    ("given", "names"),
    [({}, r"\(none\)"), ({"array": SAMPLES}, "array"), ({"samples": SAMPLES, "rate": 16000}, "samples, rate")],
)
def test_other_dictionaries_are_refused(given, names):
    with pytest.raises(
        AudioError, match=rf'has the entries {names}\. Use {{"array": samples, "sampling_rate": rate_hz}}'
    ):
        load_audio(given)


@pytest.mark.parametrize(
    ("peak", "scale"),
    [(33, "32,768"), (20_000, "32,768"), (32_768, "32,768"), (5_000_000, "8,388,608"), (2**31, "2,147,483,648")],
)
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
def test_integers_that_were_not_divided_are_named(peak, scale, sign, dtype):
    samples = np.zeros((3000, 2), dtype)
    samples[2000, 1] = sign * peak
    with pytest.raises(AudioError) as refused:
        load(samples)
    assert str(refused.value) == (
        f"The audio array has samples up to {peak:,}, far beyond 1.0, which is full scale; they look like integers "
        f"that were not divided by {scale}. Divide them by {scale}, or pass them as integers."
    )


def test_loud_and_infinite_arrays_have_other_causes():
    np.testing.assert_array_equal(load(SAMPLES * 20), SAMPLES * 20)  # beyond full scale, but not like integers
    with pytest.raises(AudioError, match=r"samples up to 1,000,000,000,000, far .* full scale\. Scale them to between"):
        load(SAMPLES.astype(np.float64) / abs(SAMPLES).max() * 1e12)
    broken = SAMPLES.copy()
    broken[1600] = np.inf
    with pytest.raises(AudioError, match=r"not finite \(NaN or infinity\) at 0\.100 s"):
        load(broken)


@pytest.mark.parametrize(
    ("samples", "sentence"),
    [
        (np.zeros(0), "contains no audio: 0 samples"),
        (np.zeros((2, 2000)), r"has shape \(2, 2000\): 2000 channels of 2 samples\. .*transpose it with samples\.T"),
        (np.zeros((9, 3, 2)), "has 3 dimensions"),
        (np.float32(1), "has 0 dimensions"),
        (np.zeros(9, np.int64), "contains int64 values"),
        (np.zeros(9, np.uint16), "contains uint16 values"),
        (np.zeros(9, complex), "contains complex128 values"),
        (np.zeros(9, bool), "contains bool values"),
        (["a", "b"], "contains <U1 values"),
        ([[1.0], [1.0, 2.0]], "cannot be read as an array of numbers"),
        (None, "contains object values|has 0 dimensions"),
    ],
)
def test_what_is_no_audio(samples, sentence):
    with pytest.raises(AudioError, match=f"The audio array {sentence}"):
        load(samples)


@pytest.mark.parametrize(
    "given", [SAMPLES, (SAMPLES,), (SAMPLES, "16000"), [SAMPLES, 16000], 5, None, ("a.wav", "b.wav")], ids=type
)
def test_an_array_needs_its_rate(given):
    with pytest.raises(AudioError, match=r"must be a pair \(samples, sample_rate_hz\)"):
        load_audio(given)


def test_no_library_is_imported_for_its_arrays():
    assert "mt3core.audio.arrays" in sys.modules
    import mt3core.audio.arrays as arrays

    assert not {"torch", "jax", "ml_dtypes"} & set(vars(arrays))
