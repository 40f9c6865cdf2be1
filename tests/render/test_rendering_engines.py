"""Engines play what the labels say: onsets, pitches, nothing left over from the part before."""

import numpy as np
import pytest

from mt3core.errors import AudioError, MissingExtraError, UsageError
from mt3core.notes.table import NOTE_DTYPE
from mt3render import engines
from mt3render.engines import ENGINES, TinySoundFont, build_engine, choose_engine
from mt3render.soundfonts import DRUM_BANK, default_sound_font
from mt3render.variation import Voice

pytestmark = pytest.mark.integration
RATE = 44_100
PIANO, XYLOPHONE, KICK, SNARE, HAT = 0, 13, 36, 38, 42
# Instruments whose sound begins at once, so that the time of the first sound is the time of the event.
SHARP = [(PIANO, 60, False), (XYLOPHONE, 72, False), (0, KICK, True), (0, SNARE, True), (0, HAT, True)]
TOLERANCE_SECONDS = 0.010
TOLERANCE_SEMITONES = 0.3
AUDIBLE = 0.02  # of a note's peak


@pytest.fixture(params=ENGINES)
def engine(request):
    try:
        return build_engine(choose_engine(request.param))
    except MissingExtraError as error:
        pytest.skip(str(error))


def voice_of(engine, program=PIANO, is_drum=False, tuning_cents=0.0):
    font = default_sound_font() if engine.uses_sound_fonts else None
    return Voice(program, DRUM_BANK if is_drum else 0, program, font, 0.0, tuning_cents)


def play(engine, notes, program=PIANO, is_drum=False, seconds=2.0, tuning_cents=0.0):
    table = np.array([(*note, program, is_drum) for note in notes], NOTE_DTYPE)
    voice = voice_of(engine, program, is_drum, tuning_cents)
    return engine.play(table, voice, round(seconds * RATE), RATE).mean(axis=1)


def first_sounds(audio, onsets):
    """When the sound of each of some notes, which are far apart, first reaches a share of its peak."""
    found = []
    for onset in onsets:
        first = round((onset - 0.1) * RATE)
        stretch = np.abs(audio[first : first + round(0.4 * RATE)])
        found.append((first + int(np.argmax(stretch > AUDIBLE * stretch.max()))) / RATE)
    return np.array(found)


@pytest.mark.parametrize(("program", "pitch", "is_drum"), SHARP)
def test_onsets_are_heard_when_the_labels_say(engine, program, pitch, is_drum):
    onsets = np.array([0.2, 1.237, 2.501, 3.9])  # on no grid
    notes = [(onset, onset + 0.1, pitch, 100) for onset in onsets]
    late = first_sounds(play(engine, notes, program, is_drum, seconds=5), onsets) - onsets
    assert np.abs(late).max() < TOLERANCE_SECONDS
    assert np.ptp(late) < 0.002  # one latency, not a drift


@pytest.mark.parametrize("program", [0, 11, 24, 33, 40, 48, 56, 65, 73, 80])
def test_pitches_are_heard_as_the_labels_say(engine, program):
    pitch = 60
    audio = play(engine, [(0.0, 1.0, pitch, 100)], program, seconds=1.0)[RATE // 10 : RATE // 10 + (1 << 15)]
    power = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 17)) ** 2
    correlation = np.fft.irfft(power)[: RATE // 60]
    lags = np.arange(RATE // 1000, len(correlation))
    # The shortest lag that is nearly as good as the best: longer ones are its multiples.
    good = correlation[lags] > 0.9 * correlation[lags].max()
    peak = lags[good][0] + int(np.argmax(correlation[lags[good][0] : lags[good][0] + 20]))
    heard = 69 + 12 * np.log2(RATE / peak / 440)
    assert heard == pytest.approx(pitch, abs=TOLERANCE_SEMITONES)


@pytest.mark.parametrize("cents", [-40.0, 24.0])
def test_a_tuning_moves_every_pitch_and_no_onset(engine, cents):
    """Partials of a piano's note stand higher by as much, in its second half as in its first."""
    onsets = np.array([0.2, 1.237])
    notes = [(onset, onset + 0.8, 60, 100) for onset in onsets]
    in_tune, tuned = (play(engine, notes, seconds=3, tuning_cents=one) for one in (0.0, cents))
    for onset in onsets:
        first = round((onset + 0.1) * RATE)
        assert higher_by(in_tune[first : first + RATE // 2], tuned[first : first + RATE // 2]) == pytest.approx(
            cents, abs=1.5
        )
    np.testing.assert_allclose(first_sounds(tuned, onsets), first_sounds(in_tune, onsets), atol=0.002)


def higher_by(first, second):
    """Cents from the spectrum of one sound to that of another: how far it is shifted on a logarithmic scale."""
    frequencies_hz = 200 * 2 ** (np.arange(0, 2400) / 1200)  # two octaves of which a cent is a step
    spectra = []
    for audio in (first, second):
        spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), 1 << 19))
        spectra.append(np.interp(frequencies_hz, np.arange(len(spectrum)) * RATE / (1 << 19), spectrum))
    shifts = np.arange(-60, 61)
    return float(shifts[np.argmax([np.dot(np.roll(spectra[0], shift), spectra[1]) for shift in shifts])])


def test_the_next_part_is_in_tune_again(engine):
    notes = [(0.0, 0.5, 60, 100)]
    alone = play(engine, notes)
    play(engine, notes, tuning_cents=30.0)
    np.testing.assert_array_equal(play(engine, notes), alone)


def test_a_released_note_ends_and_loud_notes_are_louder(engine):
    audio = play(engine, [(0.0, 0.5, 69, 127), (2.0, 2.5, 69, 40)], 80, seconds=4)
    sounding, released = np.abs(audio[: RATE // 2]).max(), np.abs(audio[RATE : 2 * RATE - RATE // 10]).max()
    assert released < 0.05 * sounding
    assert np.abs(audio[2 * RATE :]).max() < 0.7 * sounding


def test_a_part_does_not_hear_the_one_before(engine):
    notes = [(0.0, 0.5, 60, 100), (0.5, 1.0, 64, 100)]
    alone = play(engine, notes)
    play(engine, [(0.0, 1.9, 55, 120)], 89)  # a pad that rings on
    np.testing.assert_array_equal(play(engine, notes), alone)


def test_the_last_note_rings_on(engine):
    """A vibraphone's release takes a second; pretty_midi's sines end with the note."""
    audio = play(engine, [(0.0, 0.5, 60, 100)], 11, seconds=2)
    after = np.abs(audio[round(0.52 * RATE) : round(0.6 * RATE)]).max()
    assert after > 0.01 * np.abs(audio).max() or not engine.uses_sound_fonts


def test_length_is_as_asked(engine):
    assert len(play(engine, [(0.0, 5.0, 60, 100)], seconds=0.5)) == RATE // 2
    assert not play(engine, [(0.0, 0.1, 60, 100)], seconds=20)[-RATE:].any()


def test_an_engine_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(engines, "_is_installed", lambda name: name == "pretty_midi")
    assert choose_engine() == "pretty_midi"
    with pytest.raises(MissingExtraError, match=r"engine tinysoundfont is not installed. Install it: pip install"):
        choose_engine("tinysoundfont")
    with pytest.raises(MissingExtraError, match=r"engine fluidsynth is not installed. .*apt install fluidsynth"):
        choose_engine("fluidsynth")
    with pytest.raises(UsageError, match=r"Unknown engine 'timidity'. Choose auto, tinysoundfont"):
        choose_engine("timidity")


def test_a_font_that_the_engine_refuses_is_named(tmp_path):
    pytest.importorskip("tinysoundfont")
    bad = tmp_path / "bad.sf2"
    bad.write_bytes(b"RIFF\0\0\0\0sfbk")
    with pytest.raises(AudioError, match=r"TinySoundFont cannot load .*bad.sf2"):
        TinySoundFont().play(np.empty(0, NOTE_DTYPE), Voice(0, 0, 0, bad, 0.0), 100, RATE)
