"""Sampled instruments play what the labels say: times, pitches, levels, dampers, and nothing but that."""

import json

import numpy as np
import pytest
import soundfile
from midi_files import write_band
from sampled_folders import RATE_HZ, make_instrument, sample, write_recording

from mt3core.errors import AudioError, OutputError
from mt3core.notes.table import NOTE_DTYPE
from mt3render import sampler
from mt3render.dataset import Rendering, check_rendering, render_dataset
from mt3render.instrument_folders import cut_to_sound
from mt3render.instruments import Instrument, Sample, read_instrument, read_sounds, sounds_below, sounds_digest
from mt3render.sampler import Sampler, Waves, sustained
from mt3render.soundfonts import default_sound_font
from mt3render.variation import KITS, Voice

pytestmark = pytest.mark.integration
AUDIBLE = 0.02  # of a note's peak
TOLERANCE_SECONDS = 0.002
PIANO = [sample(60, (58, 62)), sample(72, (63, 84))]


@pytest.fixture(scope="module")
def piano(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds") / "piano"
    make_instrument(folder, PIANO, damped_to=80, release_seconds=((21, 0.2), (108, 0.2)))
    return folder


def play(folder, notes, seconds=2.0, is_drum=False, rate_hz=RATE_HZ, tuning_cents=0.0):
    table = np.array([(*note, 0, is_drum) for note in notes], NOTE_DTYPE)
    voice = Voice(0, 128 if is_drum else 0, 0, folder, 0.0, tuning_cents)
    audio = Sampler().play(table, voice, round(seconds * rate_hz), rate_hz)
    assert audio.dtype == np.float32
    assert audio.shape == (round(seconds * rate_hz), 2)
    return audio.mean(axis=1)


def level(audio, begin, end):
    return float(np.abs(audio[round(begin * RATE_HZ) : round(end * RATE_HZ)]).max())


def test_a_note_is_heard_when_its_label_says(piano):
    onsets = np.array([0.2, 1.237, 2.501])
    audio = np.abs(play(piano, [(onset, onset + 0.1, 65, 100) for onset in onsets], seconds=4))
    for onset in onsets:
        first = round((onset - 0.1) * RATE_HZ)
        stretch = audio[first : first + RATE_HZ // 2]
        heard = (first + int(np.argmax(stretch > AUDIBLE * stretch.max()))) / RATE_HZ
        assert heard == pytest.approx(onset, abs=TOLERANCE_SECONDS)


@pytest.mark.parametrize("key", [58, 60, 62, 63, 72, 84])
def test_keys_between_the_samples_are_in_tune(piano, key):
    audio = play(piano, [(0.0, 1.0, key, 100)], seconds=1.0)[: 1 << 13]
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 18))
    heard_hz = np.argmax(spectrum) * RATE_HZ / (1 << 18)
    assert 69 + 12 * np.log2(heard_hz / 440) == pytest.approx(key, abs=0.02)


@pytest.mark.parametrize("cents", [-40.0, 24.0])
def test_a_tuning_moves_pitches_and_neither_onsets_nor_lengths(piano, cents):
    notes = [(0.2, 0.6, 60, 100), (2.5, 2.9, 72, 100)]
    audio = play(piano, notes, seconds=4, tuning_cents=cents)
    for onset, key in ((0.2, 60), (2.5, 72)):
        first = round(onset * RATE_HZ)
        spectrum = np.abs(np.fft.rfft(audio[first : first + (1 << 12)] * np.hanning(1 << 12), 1 << 18))
        heard_hz = np.argmax(spectrum) * RATE_HZ / (1 << 18)
        assert 69 + 12 * np.log2(heard_hz / 440) == pytest.approx(key + cents / 100, abs=0.02)
        stretch = np.abs(audio[first - 800 : first + 800])
        assert np.argmax(stretch > AUDIBLE * stretch.max()) / RATE_HZ == pytest.approx(0.05, abs=TOLERANCE_SECONDS)
    assert level(audio, 0.81, 1.0) < 0.0003  # ended by the damper at 0.6 s, as in tune


def test_tuning_of_a_sample_is_mended(tmp_path):
    make_instrument(tmp_path / "flat", [sample(60, tune_cents=50.0)])
    audio = play(tmp_path / "flat", [(0.0, 1.0, 60, 100)], seconds=1.0)
    heard_hz = np.argmax(np.abs(np.fft.rfft(audio, 1 << 18))) * RATE_HZ / (1 << 18)
    assert 69 + 12 * np.log2(heard_hz / 440) == pytest.approx(60.5, abs=0.03)


def test_any_sample_rate(piano):
    audio = play(piano, [(0.5, 1.0, 60, 100)], rate_hz=44_100)
    assert np.argmax(np.abs(audio) > 0.01) / 44_100 == pytest.approx(0.5, abs=TOLERANCE_SECONDS)


def test_velocity_takes_the_layer_and_the_level_within(tmp_path):
    soft = sample(60, velocities=(1, 60), reference_velocity=30)
    loud = sample(60, velocities=(61, 100), reference_velocity=80)
    make_instrument(tmp_path / "layers", [soft, loud], amplitudes=[0.05, 0.5])
    levels = [level(play(tmp_path / "layers", [(0.0, 0.5, 60, v)]), 0, 0.1) for v in (30, 60, 61, 80, 100, 127)]
    np.testing.assert_allclose(levels, [0.05, 0.1, 0.5 * 61 / 80, 0.5, 0.5 * 100 / 80, 0.5 * 127 / 80], rtol=0.02)


def test_samples_for_the_same_note_take_turns(tmp_path):
    make_instrument(tmp_path / "turns", [sample(60), sample(60)], amplitudes=[0.1, 0.4])
    audio = play(tmp_path / "turns", [(t, t + 0.3, 60, 127) for t in (0.0, 1.0, 2.0)], seconds=3)
    np.testing.assert_allclose([level(audio, t, t + 0.1) for t in (0, 1, 2)], [0.1, 0.4, 0.1], rtol=0.03)


def test_a_damper_ends_a_note_where_there_is_one(piano):
    damped, free = (play(piano, [(0.0, 0.5, key, 127)]) for key in (80, 81))
    assert level(damped, 0.5, 0.51) > 0.05
    assert level(damped, 0.71, 0.9) < 0.0003  # 60 dB below the peak after 0.2 s
    assert level(free, 0.71, 0.9) > 0.02


def test_a_note_that_is_struck_again_rings_on(piano):
    """Under the pedal the labels end where the next begins; the string was not damped."""
    once = play(piano, [(0.0, 0.5, 60, 127)])
    again = play(piano, [(0.0, 0.5, 60, 127), (0.5, 1.0, 60, 64)])
    second = play(piano, [(0.5, 1.0, 60, 64)])
    held = play(piano, [(0.0, 1.0, 60, 127)])
    np.testing.assert_allclose(again, held + second, atol=1e-6)
    assert level(once, 0.71, 0.99) < 0.0003
    assert level(again, 1.21, 1.5) < 0.0003  # and both end with the last
    apart = play(piano, [(0.0, 0.5, 60, 127), (0.6, 1.0, 60, 64)])
    np.testing.assert_allclose(apart, once + play(piano, [(0.6, 1.0, 60, 64)]), atol=1e-6)


def test_bowed_and_blown_notes_do_not_ring_on(tmp_path):
    make_instrument(tmp_path / "flute", PIANO, rings=False, release_seconds=((21, 0.05), (108, 0.05)))
    again = play(tmp_path / "flute", [(0.0, 0.5, 60, 127), (0.5, 1.0, 60, 64)])
    np.testing.assert_allclose(
        again,
        play(tmp_path / "flute", [(0.0, 0.5, 60, 127)]) + play(tmp_path / "flute", [(0.5, 1.0, 60, 64)]),
        atol=1e-6,
    )


def test_a_held_note_lasts_longer_than_its_recording(tmp_path):
    times = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = (0.5 * np.sin(2 * np.pi * 261.6 * times)).astype(np.float32)[:, np.newaxis]
    long = sustained(tone, RATE_HZ)
    assert len(long) >= 12 * RATE_HZ
    np.testing.assert_array_equal(long[: round(1.4 * RATE_HZ)], tone[: round(1.4 * RATE_HZ)])
    loudness = np.sqrt(np.mean(long[: 12 * RATE_HZ].reshape(-1, 1600) ** 2, axis=1))
    assert loudness.min() > 0.2  # no hole where one repetition fades into the next
    assert loudness.max() < 0.6
    assert len(sustained(tone[:8000], RATE_HZ)) == 8000
    fields = {"damped_to": 127, "release_seconds": ((0, 0.05),), "half_life_seconds": 5.0}
    for name, rings in (("flute", False), ("harp", True)):
        make_instrument(tmp_path / name, [sample(60)], rings=rings, **fields)
        assert (level(play(tmp_path / name, [(0.0, 4.0, 60, 127)], seconds=5), 3, 4) > 0.1) is not rings


def test_drums_ring_and_a_closed_hi_hat_ends_an_open_one(tmp_path):
    kit = tmp_path / "kit"
    keys = (36, 42, 46)
    make_instrument(
        kit, [sample(key) for key in keys], is_drum_kit=True, choke_groups=((42, 46),), release_seconds=((0, 0.05),)
    )
    kick = play(kit, [(0.0, 0.01, 36, 127)], is_drum=True)
    assert level(kick, 0.5, 0.6) > 0.1
    assert level(play(kit, [(0.0, 0.01, 46, 127)], is_drum=True), 0.5, 0.6) > 0.1
    choked = play(kit, [(0.0, 0.01, 46, 127), (0.3, 0.31, 42, 1)], is_drum=True)
    assert level(choked, 0.36, 0.6) < 0.01
    font = read_sounds(kit)
    assert set(font.presets) == {(128, number) for number in KITS}
    assert np.flatnonzero(font.sounds(128, 0)).tolist() == list(keys)


def test_nothing_is_left_of_what_was_played_before(piano):
    notes = [(0.0, 0.5, 60, 100), (0.5, 1.0, 64, 100)]
    alone = play(piano, notes)
    play(piano, [(0.0, 1.9, 75, 120)])
    np.testing.assert_array_equal(play(piano, notes), alone)
    np.testing.assert_array_equal(play(piano, notes, seconds=0.7), alone[: round(0.7 * RATE_HZ)])
    assert not play(piano, [(0.0, 0.5, 20, 100)]).any()  # no sample, no sound


def test_waves_are_forgotten_when_there_are_too_many(piano, monkeypatch):
    made = []
    monkeypatch.setattr(sampler, "_wave", lambda *place: (made.append(place), (np.zeros((100, 1), np.int16), 1.0))[1])
    waves = Waves(most_bytes=500)
    for key in (60, 61, 60, 62, 60, 61):
        waves.wave(piano, 0, key, RATE_HZ)
    assert [place[2] for place in made] == [60, 61, 62, 61]


def test_a_recording_is_cut_to_its_sound(tmp_path):
    audio, rate_hz = soundfile.read(write_recording(tmp_path / "a.wav", 60, seconds=6), always_2d=True)
    cut = cut_to_sound(audio, rate_hz)
    assert np.argmax(np.abs(cut[:, 0]) > 0.05) / rate_hz == pytest.approx(0.001, abs=0.0005)
    assert len(cut) / rate_hz == pytest.approx(3.0, abs=0.1)  # ten half-lives of 0.3 s to -60 dB
    assert abs(cut[0, 0]) < 1e-6
    assert abs(cut[-1, 0]) < 1e-6


def test_a_folder_is_read_as_it_was_written(piano):
    instrument = read_instrument(piano)
    assert instrument.name == "Sines"
    assert [(one.key, one.keys) for one in instrument.samples] == [(60, (58, 62)), (72, (63, 84))]
    assert instrument.release_of(60) == pytest.approx(0.2)
    font = read_sounds(piano)
    assert set(font.presets) == {(0, 0), (0, 1)}
    assert np.flatnonzero(font.sounds(0, 1)).tolist() == list(range(58, 85))
    with pytest.raises(OutputError, match="already exists"):
        make_instrument(piano, PIANO)


def test_the_digest_knows_every_file(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for folder, amplitude in zip(folders, (0.5, 0.5, 0.4), strict=True):
        make_instrument(folder, PIANO, amplitudes=[0.5, amplitude])
    digests = [sounds_digest(folder) for folder in folders]
    assert digests[0] == digests[1] != digests[2]
    assert len(sounds_digest(default_sound_font())) == 64


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda fields: fields.pop("licence"), r"is not valid \('licence'\)"),
        (lambda fields: fields.update(program=3), "unknown field 'program'"),
        (lambda fields: fields.update(samples=[]), "it has no samples"),
        (lambda fields: fields.update(programs=[]), "it needs either programs or is_drum_kit"),
        (lambda fields: fields.update(programs=[128]), "programs are from 0 to 127"),
        (lambda fields: fields.update(release_seconds=[[60, 0]]), "release_seconds are pairs"),
        (lambda fields: fields["samples"][0].update(keys=[62, 58]), "has keys 62 to 58"),
        (lambda fields: fields["samples"][0].update(file="../a.wav"), "is outside the folder"),
        (lambda fields: fields["samples"][0].update(file="b.wav"), r"names b.wav, which is missing"),
        (lambda fields: fields["samples"][0].update(loudness=3), "unexpected keyword argument 'loudness'"),
    ],
)
def test_a_wrong_description_is_refused(tmp_path, change, sentence):
    folder = tmp_path / "piano"
    make_instrument(folder, PIANO)
    path = folder / "instrument.json"
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))
    read_instrument.cache_clear()
    with pytest.raises(AudioError, match=sentence):
        read_sounds(folder)


def test_a_folder_without_description_is_refused(tmp_path):
    with pytest.raises(AudioError, match=r"is not a sampled instrument: instrument.json cannot be read \(No such file"):
        read_sounds(tmp_path)
    (tmp_path / "instrument.json").write_text("[]")
    with pytest.raises(AudioError, match=r"instrument\.json is not valid"):
        read_sounds(tmp_path)


def test_a_sample_that_is_no_audio_is_refused(tmp_path):
    folder = tmp_path / "piano"
    made = make_instrument(folder, PIANO)
    (folder / made.samples[0].file).write_bytes(b"nothing")
    with pytest.raises(AudioError, match="cannot be read"):
        play(folder, [(0.0, 0.5, 60, 100)])


def test_silence_makes_no_sample(tmp_path):
    with pytest.raises(AudioError, match="is silent"):
        make_instrument(tmp_path / "a", PIANO, amplitudes=[0.0, 1.0])


def test_release_times_lie_between_those_given():
    fields = {"name": "", "licence": "", "attribution": "", "source": "", "programs": (0,)}
    instrument = Instrument(**fields, samples=(Sample("", 60, (0, 127)),), release_seconds=((20, 1.0), (40, 0.5)))
    assert [instrument.release_of(key) for key in (10, 30, 90)] == [1.0, 0.75, 0.5]


def test_folders_play_beside_sound_fonts_in_one_rendering(tmp_path):
    """The voice that is drawn decides what plays: here two copies of a piano and a General MIDI font."""
    yaml = pytest.importorskip("yaml")
    piano = tmp_path / "sines"
    make_instrument(piano, [sample(60, (0, 127))], programs=tuple(range(8)))
    settled = check_rendering(
        Rendering("slakh", "auto", (default_sound_font(), piano), sample_rate_hz=RATE_HZ, programs="keep")
    )
    if settled.engine == "pretty_midi":
        pytest.skip("needs an engine that plays sound fonts")
    for number in range(4):
        write_band(tmp_path / f"in/{number}.mid", number)
    report = render_dataset(tmp_path / "in", tmp_path / "out", settled)
    assert report.count("written") == 4
    used = set()
    for path in (tmp_path / "out").glob("*/*/metadata.yaml"):
        for stem in yaml.safe_load(path.read_text())["stems"].values():
            used.add((stem["plugin_name"].split(":")[0], stem["program_num"] < 8))
    assert used == {("sines", True), ("TimGM6mb.sf2", True), ("TimGM6mb.sf2", False)}
    settings = json.loads((tmp_path / "out/rendering.json").read_text())
    assert settings["sound_fonts"] == [[path.name, sounds_digest(path)] for path in settled.sound_fonts]


def test_a_folder_of_sounds_stands_for_all_in_it(tmp_path, capsys):
    sounds = tmp_path / "sounds"
    make_instrument(sounds / "b piano", [sample(60, (0, 127))])
    make_instrument(sounds / "a harp", [sample(60, (0, 127))], programs=(46,))
    (sounds / "C.SF2").write_bytes(default_sound_font().read_bytes())
    (sounds / "LIST.md").write_text("notes")
    assert [path.name for path in sounds_below(sounds)] == ["C.SF2", "a harp", "b piano"]
    (sounds / "0 link").symlink_to(sounds / "a harp")
    (sounds / "loop").symlink_to(sounds / "loop")
    assert [path.name for path in sounds_below(sounds)] == ["C.SF2", "a harp", "b piano"]
    assert sounds_below(sounds / "a harp") == (sounds / "a harp",)
    settled = check_rendering(Rendering("slakh", "auto", (sounds / "a harp", sounds), sample_rate_hz=RATE_HZ))
    assert [path.name for path in settled.sound_fonts] == ["a harp", "C.SF2", "a harp", "b piano"]
    with pytest.raises(AudioError, match=r"contains neither instrument\.json nor sounds"):
        check_rendering(Rendering("slakh", "auto", (tmp_path,)))


def test_folders_alone_need_no_other_engine(tmp_path):
    piano = tmp_path / "sines"
    make_instrument(piano, [sample(60, (0, 127))], programs=tuple(range(128)))
    write_band(tmp_path / "in/a.mid", 0)
    rendering = Rendering("slakh", "pretty_midi", (piano,), sample_rate_hz=RATE_HZ)
    (outcome,) = render_dataset(tmp_path / "in", tmp_path / "out", rendering).outcomes
    assert outcome.state == "written"
    assert outcome.num_left_out > 0  # the drums, which nothing plays
