"""Published collections of samples become folders that a rendering can play: `mt3 sounds`."""

import numpy as np
import pytest
from sampled_folders import write_recording

from mt3app.cli import run
from mt3core.errors import UsageError
from mt3core.rendering.instrument_sources import Card, parse_programs, read_source
from mt3core.rendering.instruments import read_instrument, read_sounds

pytestmark = pytest.mark.integration
RATE_HZ = 16_000


@pytest.fixture(scope="module")
def salamander(tmp_path_factory):
    folder = tmp_path_factory.mktemp("salamander")
    for layer in (1, 2, 3, 4):
        for name, key in (("A0", 21), ("C4", 60), ("A4", 69), ("D#4", 63)):
            write_recording(folder / f"layer{layer}/audio/{name}v{layer}.wav", key, 0.1 * layer, seconds=0.5)
    return folder


def test_the_salamander_plays_every_key_in_every_layer(salamander, tmp_path, capsys):
    assert run(["sounds", str(salamander), str(tmp_path / "piano"), "--rate", "8000", "--mono"]) == 0
    assert "Salamander Grand V3, 16 samples for keys 21 to 108; CC BY 3.0, Alexander Holm" in capsys.readouterr().err
    piano = read_instrument(tmp_path / "piano")
    assert [(one.key, one.keys, one.velocities) for one in piano.samples[:5]] == [
        (21, (21, 40), (1, 31)),
        (60, (41, 61), (1, 31)),
        (63, (62, 66), (1, 31)),
        (69, (67, 108), (1, 31)),
        (21, (21, 40), (32, 63)),
    ]
    assert [one.velocities for one in piano.samples[8::4]] == [(64, 95), (96, 127)]
    assert np.flatnonzero(read_sounds(tmp_path / "piano").sounds(0, 0)).tolist() == list(range(21, 109))
    levels = [one.gain_db for one in piano.samples[1::4]]
    np.testing.assert_allclose(np.diff(levels), 20 * np.log10([2, 3 / 2, 4 / 3]), atol=0.1)


def test_fewer_layers_are_spread_evenly(salamander):
    _, takes = read_source(salamander, Card(), num_layers=2)
    assert [take.recordings[0].path.name for take in takes[::4]] == ["A0v2.wav", "A0v4.wav"]
    assert [take.sample.velocities for take in takes[::4]] == [(1, 63), (64, 127)]
    assert len(read_source(salamander, Card(), num_layers=9)[1]) == 16


def test_a_salamander_with_holes_is_refused(tmp_path):
    for name in ("A4v1", "C4v1", "A4v2"):
        write_recording(tmp_path / f"{name}.wav", 60, seconds=0.1)
    with pytest.raises(UsageError, match="lacks some of the piano's recordings"):
        read_source(tmp_path, Card())


def test_what_a_person_says_counts(salamander):
    card = Card("Grand", "CC0", "me", "here", (1, 2), False)
    instrument, _ = read_source(salamander, card)
    assert (instrument.name, instrument.licence, instrument.attribution) == ("Grand", "CC0", "me")
    assert (instrument.source, instrument.programs, instrument.rings) == ("here", (1, 2), False)


def test_programs_are_numbers(tmp_path, capsys):
    assert parse_programs("40, 41") == (40, 41)
    assert parse_programs(None) is None
    for text in ("violin", "128", "-1", "1,"):
        with pytest.raises(UsageError, match="are no programs"):
            parse_programs(text)


def test_other_folders_are_refused(tmp_path, capsys):
    assert run(["sounds", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "holds no samples of a known kind" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
