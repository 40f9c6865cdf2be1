"""`mt3 data show`: what is written is the example that training has, and a wrong call gets its sentence."""

import sys
import types

import numpy as np
import pytest
import soundfile
from prepared_chunks import Recording, prepare

from mt3app.cli import run
from mt3app.commands import data_show
from mt3core.config.model import PRESETS
from mt3core.notes.midi_reading import read_midi
from mt3core.notes.table import note_table

pytestmark = pytest.mark.integration

# One note a second and a drum in between; held over every second segment.
NOTES = [[second + 0.5, second + 1.2, 60 + second, 90, 40, False] for second in range(12)]
NOTES += [[second + 0.25, second + 0.26, 38, 90, 0, True] for second in range(12)]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    audio = (3000 * np.sin(np.arange(13 * 16000) / 10)).astype(np.int16)
    return prepare(tmp_path_factory.mktemp("data"), [Recording("tune", audio, sorted(NOTES), dataset="folder")])


def test_wav_midi_and_picture_show_the_segment(manifest, tmp_path, capsys):
    assert run(["data", "show", str(manifest), "1", "-o", str(tmp_path / "out"), "--evaluation"]) == 0
    printed = capsys.readouterr()
    assert "folder/train/tune/mix from 2.048 s, row 0 of the manifest" in printed.out
    assert "3 notes and 2 drum hits" in printed.out
    samples, rate_hz = soundfile.read(tmp_path / "out/example_1.wav", dtype="int16")
    assert rate_hz == 16000
    assert samples.tolist() == (3000 * np.sin(np.arange(32768, 65536) / 10)).astype(np.int16).tolist()
    notes = read_midi(tmp_path / "out/example_1.mid")
    # Its step 0 is 2.04 s. The notes of 1.5, 2.5 and 3.5 s, the first and the last cut by the segment's ends.
    pitched = notes[~notes["is_drum"]]
    assert pitched["pitch"].tolist() == [61, 62, 63]
    assert pitched["program"].tolist() == [40] * 3
    np.testing.assert_allclose(pitched["onset"], [0, 0.46, 1.46], atol=0.002)
    np.testing.assert_allclose(pitched["offset"], [0.16, 1.16, 2.048], atol=0.002)
    np.testing.assert_allclose(notes["onset"][notes["is_drum"]], [0.21, 1.21], atol=0.002)
    assert (tmp_path / "out/example_1.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("preset", ["mt3", "ismir2021"])
def test_the_picture_begins_with_the_recording_and_shows_sounds_when_they_are_heard(preset):
    """A frame is the window that starts with it: drawn there, sounds seem half a window early; later, black is left."""
    pyplot = pytest.importorskip("matplotlib.pyplot", reason="needs Matplotlib")
    model = PRESETS[preset]
    rate, frames = model.spectrogram.sample_rate_hz, 128
    samples = np.zeros(frames * model.spectrogram.hop_samples, np.int16)
    click = 0.5
    samples[int(click * rate)] = 30_000
    example = types.SimpleNamespace(samples=samples, num_frames=frames)
    figure = data_show._draw(pyplot, example, note_table([]), model, "a click")
    above = figure.axes[0]
    (mesh,) = above.collections
    edges = mesh.get_coordinates()[0, :, 0]
    seconds = frames / model.spectrogram.frames_per_second
    assert (edges[0], above.get_xlim()) == (0, (0, pytest.approx(seconds)))
    assert edges[-1] >= seconds
    loudness = np.asarray(mesh.get_array()).reshape(-1, frames).max(axis=0)
    heard = np.flatnonzero(loudness > loudness.max() - 1)  # the windows with the click well inside
    middle = (edges[heard[0]] + edges[heard[-1] + 1]) / 2
    assert middle == pytest.approx(click, abs=model.spectrogram.hop_samples / rate)
    pyplot.close(figure)


def test_an_example_of_training_is_the_one_of_its_number_and_seed(manifest, tmp_path):
    from mt3core.config.data import DataConfig
    from mt3jax.pipeline import training_pipeline

    assert run(["data", "show", str(manifest.parent), "3", "-o", str(tmp_path), "--seed", "5"]) == 0
    samples, _ = soundfile.read(tmp_path / "example_3.wav", dtype="int16")
    batches = [
        training_pipeline(DataConfig(str(manifest)), 4, seed=seed, host=0, num_hosts=1).batch(0) for seed in (5, 6)
    ]
    assert samples.tolist() == batches[0]["audio"][3].tolist()
    assert samples.tolist() != batches[1]["audio"][3].tolist()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere", "0"], "There is no manifest nowhere"),
        (["{}", "7", "--evaluation"], "There is no segment 7. The split train has 7"),
        (["{}", "0", "--preset", "big"], "Unknown preset 'big'. Choose from mt3"),
        (["{}", "0", "--dataset", "slakh"], "has no data set 'slakh'"),
        (["{}", "0", "--split", "test", "--evaluation"], "has no recordings in 'test'"),
    ],
)
def test_wrong_calls_get_a_sentence_and_write_nothing(manifest, tmp_path, capsys, arguments, sentence):
    arguments = [argument.format(manifest) for argument in arguments]
    assert run(["data", "show", *arguments, "-o", str(tmp_path / "out")]) in (1, 2)
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_matplotlib_the_extra_is_named(manifest, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["data", "show", str(manifest), "0", "-o", str(tmp_path / "out")]) == 1
    assert "mt3: A picture needs matplotlib, which is not installed. Run: pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
