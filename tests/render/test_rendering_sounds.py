"""Published collections of samples become folders that a rendering can play: `mt3 sounds`."""

import numpy as np
import pytest
from sampled_folders import write_recording

from mt3app.cli import run
from mt3core.errors import UsageError
from mt3render.drum_kits import general_midi_key
from mt3render.instrument_sources import Card, parse_numbers, read_source
from mt3render.instruments import read_instrument, read_sounds
from mt3render.pitch import cents_above

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


def test_a_salamander_may_be_linked(salamander, tmp_path):
    for layer in (1, 2, 3, 4):
        (tmp_path / f"layer{layer}").symlink_to(salamander / f"layer{layer}")
    (tmp_path / "again").symlink_to(salamander / "layer1")
    assert len(read_source(tmp_path, Card())[1]) == 16


def test_a_salamander_with_holes_is_refused(tmp_path):
    for name in ("A4v1", "C4v1", "A4v2"):
        write_recording(tmp_path / f"{name}.wav", 60, seconds=0.1)
    with pytest.raises(UsageError, match="has only some of the piano's recordings"):
        read_source(tmp_path, Card())


def test_what_a_person_says_counts(salamander):
    card = Card("Grand", "CC0", "me", "here", (1, 2), False)
    instrument, _ = read_source(salamander, card)
    assert (instrument.name, instrument.licence, instrument.attribution) == ("Grand", "CC0", "me")
    assert (instrument.source, instrument.programs, instrument.rings) == ("here", (1, 2), False)


def test_programs_and_keys_are_numbers():
    assert parse_numbers("40, 42-44") == (40, 42, 43, 44)
    assert parse_numbers(None) is None
    for text in ("violin", "128", "-1", "1,", "5-3", "1-128"):
        with pytest.raises(UsageError, match="is not a list of programs or keys"):
            parse_numbers(text)


def test_other_folders_are_refused(tmp_path, capsys):
    assert run(["sounds", str(tmp_path), str(tmp_path / "out")]) == 2
    assert "contains no samples of a known kind" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


SFZ = """// a harp of two strings, with much that is not heard
#define $folder samples
#include "macros.sfz"
<control> default_path=$folder/ set_cc1=127 set_hdcc2=0.5
<global> ampeg_release=0.4 amp_veltrack=50
<group> lokey=c3 hikey=47 pitch_keycenter=b2 volume=-6
<region> sample=low string.wav hivel=63
<region> sample=loud.wav lovel=64 amplitude_oncc2=100 tune=-10
<region> sample=noise.wav trigger=release
<region> sample=other.wav locc1=0 hicc1=126
<region> sample=*silence
<group> key=$top /* two
takes */ lorand=0 hirand=0.5
<region> sample=turn1.wav
<region> sample=far1.wav amplitude=50
<group> key=$top lorand=0.5
<region> sample=turn2.wav
"""


@pytest.fixture
def harp(tmp_path):
    (tmp_path / "harp.sfz").write_text(SFZ.replace("lokey=c3 hikey=47", "lokey=a#2 hikey=48"))
    (tmp_path / "macros.sfz").write_text("#define $top 60")
    for name, key in (("low string", 47), ("loud", 47), ("turn1", 60), ("far1", 60), ("turn2", 60)):
        write_recording(tmp_path / f"samples/{name}.wav", key, 0.2, seconds=0.3)
    return tmp_path / "harp.sfz"


CARD = Card(programs=(46,), licence="CC0", attribution="nobody")


def test_an_sfz_file_plays_its_keys_and_nothing_else(harp):
    instrument, takes = read_source(harp, CARD)
    assert (instrument.name, instrument.programs, instrument.velocity_exponent) == ("harp", (46,), 1.0)
    assert instrument.release_of(60) == pytest.approx(0.4)
    assert [[one.path.name for one in take.recordings] for take in takes] == [
        ["low string.wav"],
        ["loud.wav"],
        ["turn1.wav", "far1.wav"],  # two microphones
        ["turn2.wav"],
    ]
    low, loud, first, second = (take.sample for take in takes)
    assert (low.key, low.keys, low.velocities) == (47, (46, 48), (1, 63))
    assert (loud.velocities, loud.tune_cents) == ((64, 127), -10)
    assert takes[0].recordings[0].gain_db == -6
    assert takes[1].recordings[0].amplitude == pytest.approx(0.5)
    assert [one.amplitude for one in takes[2].recordings] == [1.0, 0.5]
    assert first.keys == second.keys == (60, 60)


def test_microphones_are_mixed_and_one_file_may_play_twice(harp, tmp_path):
    arguments = ["--programs", "46", "--licence", "CC0", "--attribution", "me", "--mono", "--keys", "46,48,60"]
    assert run(["sounds", str(harp), str(tmp_path / "out"), *arguments]) == 0
    made = read_instrument(tmp_path / "out")
    assert [one.keys for one in made.samples] == [(46, 46), (48, 48), (46, 46), (48, 48), (60, 60), (60, 60)]
    assert made.samples[0].file == made.samples[1].file
    assert made.samples[4].gain_db - made.samples[5].gain_db == pytest.approx(20 * np.log10(1.5), abs=0.02)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<region> sample=a.wav key=up", "has a value that cannot be read"),
        ("<region> sample=a.wav trigger=release key=60", "plays nothing on plain key presses"),
        ('#include "bad.sfz"', "includes itself"),
        ('#include "none.sfz"', "none.sfz cannot be read: No such file"),
    ],
)
def test_sfz_files_that_cannot_be_played_are_refused(tmp_path, text, sentence):
    (tmp_path / "bad.sfz").write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_source(tmp_path / "bad.sfz", CARD)


def test_what_nothing_says_has_to_be_given(harp, tmp_path, capsys):
    with pytest.raises(UsageError, match=r"It is unknown what harp.sfz plays. Use --programs"):
        read_source(harp, Card())
    with pytest.raises(UsageError, match=r"The licence of .*harp.sfz is unknown. Use --licence"):
        read_source(harp, Card(programs=(46,)))
    with pytest.raises(UsageError, match=r"harp.sfz has none of these keys"):
        read_source(harp, Card(programs=(46,), licence="CC0", attribution="me", keys=(1, 2)))


def test_pianos_have_dampers_whatever_the_file_says(harp):
    instrument, _ = read_source(harp, Card(programs=(0,), licence="CC0", attribution="me"))
    assert instrument.damped_to == 88
    assert instrument.release_of(21) > instrument.release_of(80)


def test_an_octave_may_be_mended_by_the_file(harp):
    harp.write_text(harp.read_text().replace("<control>", "<control> octave_offset=-1 note_offset=2"))
    _, takes = read_source(harp, CARD)
    assert (takes[0].sample.key, takes[0].sample.keys) == (37, (36, 38))


def test_velocity_that_only_chooses_the_layer_changes_the_level_within(harp):
    harp.write_text(harp.read_text().replace("amp_veltrack=50", "amp_veltrack=0"))
    instrument, takes = read_source(harp, CARD)
    assert instrument.velocity_exponent == 1.0
    assert [take.sample.reference_velocity for take in takes[:2]] == [32, 95]
    harp.write_text(harp.read_text().replace("amp_veltrack=0", "amp_veltrack=0 amp_veltrack_oncc1=75"))
    instrument, takes = read_source(harp, CARD)
    assert instrument.velocity_exponent == 1.5
    assert takes[0].sample.reference_velocity == 127


def test_layers_with_a_curve_of_their_own(tmp_path):
    write_recording(tmp_path / "a.wav", 60, seconds=0.1)
    (tmp_path / "a.sfz").write_text("<region> key=60 hivel=40 amp_velcurve_40=1 sample=a.wav")
    instrument, takes = read_source(tmp_path / "a.sfz", CARD)
    assert (instrument.velocity_exponent, takes[0].sample.reference_velocity) == (1.0, 40)


def test_layers_that_fade_into_each_other_meet_in_the_middle(tmp_path):
    fades = ("sample=a.wav xfout_lovel=40 xfout_hivel=60", "sample=b.wav xfin_lovel=40 xfin_hivel=60")
    (tmp_path / "a.sfz").write_text("\n".join(f"<region> key=60 {fade}" for fade in fades))
    _, takes = read_source(tmp_path / "a.sfz", CARD)
    assert [take.sample.velocities for take in takes] == [(1, 50), (51, 127)]


def test_key_switches_play_what_is_chosen_at_first(tmp_path):
    text = "<global> sw_default=c1\n<region> key=60 sample=a.wav sw_last=c1\n<region> key=60 sample=b.wav sw_last=d1"
    (tmp_path / "a.sfz").write_text(text)
    (take,) = read_source(tmp_path / "a.sfz", CARD)[1]
    assert take.recordings[0].path.name == "a.wav"


@pytest.mark.parametrize(("key", "cents"), [(28, -90), (45, 34), (60, 200), (60, -246), (84, 80), (100, 0)])
def test_the_pitch_of_a_note_is_measured(key, cents):
    times = np.arange(RATE_HZ) / RATE_HZ
    frequency_hz = 440 * 2 ** ((key - 69) / 12 + cents / 1200)
    vibrato = 0.4 * frequency_hz / 440 * np.sin(2 * np.pi * 5.5 * times)
    phase = 2 * np.pi * frequency_hz * times + vibrato
    weak_first = sum(np.sin(number * phase) / max(number, 3) for number in range(1, 7) if number * frequency_hz < 7000)
    assert cents_above(weak_first, RATE_HZ, key) == pytest.approx(cents, abs=6)
    assert cents_above(weak_first[:1200], RATE_HZ, key) == 0  # too short


def test_recordings_are_mended_when_told_and_only_then(tmp_path):
    for key, amplitude in ((60, 0.5), (64, 0.25), (68, 0.02)):
        write_recording(tmp_path / f"oboe/{key}.wav", key + 2, amplitude, seconds=1.0)
    samples = "".join(f'<sample filename="{key}.wav" midi_note="{key}"/>' for key in (60, 64, 68))
    (tmp_path / "oboe/instrument.xml").write_text(f"<instrument>{samples}</instrument>")
    said = ["--programs", "68", "--licence", "PD", "--attribution", "Iowa"]
    for out, more in (("as played", ["--velocity-exponent", "0.5"]), ("mended", ["--mend"])):
        assert run(["sounds", str(tmp_path / "oboe"), str(tmp_path / out), *said, *more]) == 0
    played, mended = (read_instrument(tmp_path / name) for name in ("as played", "mended"))
    assert [one.tune_cents for one in played.samples] == [0, 0, 0]
    assert played.velocity_exponent == 0.5
    assert [one.tune_cents for one in mended.samples] == pytest.approx([-200] * 3, abs=3)
    changes = [after.gain_db - before.gain_db for before, after in zip(played.samples, mended.samples, strict=True)]
    assert changes == pytest.approx([0, 0, 20 * np.log10(0.25 / 0.02) - 6], abs=0.3)  # the last was 22 dB softer


def test_spectmorph_plays_a_note_a_file(tmp_path, capsys):
    folder = tmp_path / "oboe"
    for key in (60, 62):
        write_recording(folder / f"{key}.wav", key, seconds=0.3)
    samples = "".join(f'<sample filename="{key}.wav" midi_note="{key}"/>' for key in (62, 60))
    (folder / "instrument.xml").write_text(f'<instrument name="Oboe">{samples}</instrument>')
    assert run(["sounds", str(folder), str(tmp_path / "out"), "--licence", "PD", "--attribution", "Iowa"]) == 2
    assert "It is unknown what oboe plays." in capsys.readouterr().err
    said = ["--programs", "68", "--licence", "PD", "--attribution", "Iowa", "--rate", "8000", "--keys", "58-63"]
    assert run(["sounds", str(folder), str(tmp_path / "out"), *said]) == 0
    made = read_instrument(tmp_path / "out")
    assert (made.name, made.programs, made.rings) == ("Oboe", (68,), False)
    assert [(one.key, one.keys) for one in made.samples] == [(60, (58, 61)), (62, (62, 63))]
    for text in ("<instrument/>", "<instrument><sample/></instrument>", "<"):
        (folder / "instrument.xml").write_text(text)
        with pytest.raises(UsageError, match=r"instrument.xml (has no samples|cannot be read)"):
            read_source(folder, Card())


KIT = """<?xml version="1.0"?>
<drumkit_info xmlns="http://www.hydrogen-music.org/drumkit">
 <name>Two drums</name><author>me</author><license>CC0</license>
 <instrumentList>
  <instrument><name>Bass Drum (22 inch)</name><volume>0.5</volume><gain>2</gain>
   <layer><filename>soft.wav</filename><min>0</min><max>0.5</max><gain>0.5</gain><pitch>0</pitch></layer>
   <layer><filename>loud.wav</filename><min>0.5</min><max>1</max><gain>1</gain><pitch>-1</pitch></layer>
  </instrument>
  <instrument><name>Floor Tom</name><filename>tom.wav</filename><volume>0.8</volume></instrument>
  <instrument><name>Crash</name><filename>crash.wav</filename></instrument>
  <instrument><name>17</name><filename>nothing.wav</filename></instrument>
  <instrument><name>Kick</name></instrument>
 </instrumentList>
</drumkit_info>"""


@pytest.fixture
def kit(tmp_path):
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit/drumkit.xml").write_text(KIT)
    for name in ("soft", "loud", "tom", "crash"):
        write_recording(tmp_path / f"kit/{name}.wav", 60, 0.2, seconds=0.3)
    return tmp_path / "kit"


def test_a_hydrogen_kit_is_mapped_by_its_names_and_completed(kit, tmp_path, capsys):
    assert run(["sounds", str(kit), str(tmp_path / "out"), "--mono"]) == 0
    made = read_instrument(tmp_path / "out")
    assert (made.name, made.licence, made.attribution, made.is_drum_kit) == ("Two drums", "CC0", "me", True)
    assert made.choke_groups == ((42, 44, 46),)
    assert np.flatnonzero(read_sounds(tmp_path / "out").sounds(128, 0)).tolist() == [
        *(35, 36),
        *(41, 43, 45, 47, 48, 49, 50, 52, 55, 57),
    ]
    soft, loud = (one for one in made.samples if one.keys == (36, 36))
    assert (soft.velocities, loud.velocities, loud.tune_cents) == ((1, 63), (64, 127), -100)
    assert loud.gain_db - soft.gain_db == pytest.approx(6.02, abs=0.02)
    shifts = {one.keys[0]: one.keys[0] - one.key for one in made.samples if one.file.startswith("tom")}
    assert shifts == {41: 0, 43: 2, 45: 4, 47: 6, 48: 8, 50: 10}
    assert len(list((tmp_path / "out").glob("*.flac"))) == 4


def test_names_of_drums_mean_keys():
    names = {
        "Closed HH": 42,
        "Hi-Hat Pedal (14 inch)": 44,
        "Side OHH": 46,
        "a#3 - hi-hat open": 46,
        "Sabian Hat Semi-Open": None,
        "Pearl Side Stick": 37,
        "Snare Rimshot": 40,
        "Ride Bell": 53,
        "Tom Mid": 47,
        "tomhi3": 50,
        "Tambourine Pedal": None,
        "Woodblock Lo": 77,
        "29": None,
    }
    assert {name: general_midi_key(name, set()) for name in names} == names
    assert [general_midi_key("Snare 2", taken) for taken in ({38}, {38, 40})] == [40, None]


def test_kits_that_cannot_be_read_are_refused(kit):
    (kit / "drumkit.xml").write_text(KIT.replace("Bass Drum", "x").replace("Floor Tom", "x").replace("Crash", "x"))
    with pytest.raises(UsageError, match="has no drums with known names"):
        read_source(kit, Card())
    (kit / "drumkit.xml").write_text("<drumkit")
    with pytest.raises(UsageError, match=r"drumkit.xml cannot be read"):
        read_source(kit, Card())
