"""Odd and damaged MIDI files: what is read, what is remarked on, what is refused and why."""

import random

import numpy as np
import pytest
from conftest import shared_path
from hypothesis import given
from hypothesis import strategies as st
from midi_messages import spans
from odd_midi import ODD, PLAIN, PLAIN_SPANS, REFUSED, header, track

from mt3core.errors import MidiError
from mt3core.notes import MIDI_SUFFIXES
from mt3core.notes.midi_reading import MOST_BYTES, read_content, read_midi
from mt3core.notes.table import MOST_SECONDS, validate_notes

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ODD)
def test_odd_files_are_read_and_remarked_on(name):
    odd = ODD[name]
    content = read_content(odd.data, drop_empty=True)
    np.testing.assert_allclose(spans(content.notes), odd.spans, rtol=0, atol=1e-9)
    if odd.remark:
        (remark,) = [one for one in content.remarks if odd.remark in one]
        assert not remark.endswith(".")
    else:
        assert content.remarks == ()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_says_why(name):
    data, why = REFUSED[name]
    with pytest.raises(MidiError, match="The MIDI data cannot be read as a MIDI file: ") as caught:
        read_midi(data)
    assert why in caught.value.problem
    assert caught.value.next_step in ("Copy or download it again.", "Export it again, as a Standard MIDI File.")


HARD_INPUTS = {
    "00_plain": "",
    "01_keysig_18_flats": "1 key signature makes no sense",
    "03_keysig_mode255": "1 key signature makes no sense",
    "09_track_length_too_long": "track 2 says that it has 48 bytes; it has 41",
    "15_header_says_1_track_has_2": "its header counts 1 track, it has 2",
    "24_last_note_never_released": "1 note is never released",
    "26_foreign_chunk_XFIH": "1 chunk of another kind (XFIH)",
    "35_timesig_zero_numerator": "1 time signature makes no sense",
}


@pytest.mark.parametrize("name", HARD_INPUTS)
def test_hard_inputs_have_four_notes(name):
    content = read_content(shared_path(f"hard_inputs/midi/{name}.mid"), drop_empty=True)
    assert spans(content.notes) == list(PLAIN_SPANS)
    assert [HARD_INPUTS[name] in remark for remark in content.remarks] == [True] * bool(HARD_INPUTS[name])


def test_hard_inputs_of_other_contents():
    maps = read_content(shared_path("hard_inputs/midi/04_maps_ppq32767_160s.mid"), drop_empty=True)
    assert len(maps.notes) == 5
    assert maps.notes["onset"][-1] == pytest.approx(162.25, abs=0.001)
    assert maps.remarks == ()
    ours = read_content(shared_path("hard_inputs/midi/midi_20_instruments_4_on_port_1.mid"), drop_empty=True)
    assert len(ours.notes) == 21
    assert len({one.program for one in ours.instruments if not one.is_drum}) == 20
    assert ours.remarks == ()
    with pytest.raises(MidiError, match=r"28_empty_0_bytes\.mid cannot be read as a MIDI file: it is empty"):
        read_midi(shared_path("hard_inputs/midi/28_empty_0_bytes.mid"))


def test_values_over_127_become_127():
    content = read_content(ODD["program_and_control_200"].data, drop_empty=True)
    assert content.controls.tolist() == [[0.0, 7.0, 127.0]]
    assert read_content(ODD["velocity_200"].data, drop_empty=True).notes["velocity"].tolist() == [90, 90, 127, 90]


def test_a_tempo_of_0_leaves_the_one_before():
    slow = b"\x00\xff\x51\x03\x0f\x42\x40"  # a second per quarter
    data = ODD["tempo_0"].data.replace(b"\x00\xff\x51\x03\x07\xa1\x20", slow)
    assert read_midi(data)["onset"].tolist() == [0.5, 1.5, 2.5, 3.5]


def test_many_tracks_that_are_odd_alike_are_counted():
    data = header(50) + 50 * track(b"\x00\x90\x3c\x5a\x10\x80\x3c\x00")
    assert read_content(data, drop_empty=True).remarks == ("track 1 has no end-of-track event (49 more alike)",)


def test_controls_after_a_day_hold_no_note():
    late = b"\x00\xb0\x40\x7f" + b"\xff\xff\xff\x7f\xff\x01\x00" * 2 + b"\x00\xb0\x40\x00\x00\xff\x2f\x00"
    data = header() + track(b"\x00\xff\x51\x03\x07\xa1\x20\x00\xff\x2f\x00") + track(PLAIN[-41:-4] + late)
    content = read_content(data, drop_empty=True)
    assert content.remarks == ("1 control change after a day is passed over",)
    assert content.held()["offset"].max() < MOST_SECONDS


@pytest.mark.parametrize("data", [PLAIN, ODD["riff"].data, ODD["foreign_chunks_around"].data])
def test_no_prefix_passes_for_the_whole(data):
    whole = read_content(data, drop_empty=True)
    for end in range(len(data)):
        try:
            found = read_content(data[:end], drop_empty=True)
        except MidiError:
            continue
        said = set(found.remarks) - set(whole.remarks)
        is_whole = len(found.notes) == len(whole.notes)  # only a chunk after all tracks is cut
        assert is_whole or any("perhaps its end is missing" in one for one in said), end


def test_more_than_a_piece_of_music_is_not_read(tmp_path):
    path = tmp_path / "film.mid"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(MidiError, match=r"it has more than 16 MB, so it is something else\. Leave it out\."):
        read_midi(path)
    with pytest.raises(MidiError, match="it has more than 65535 tracks"):
        read_midi(header() + track(b"") * 70_000)


def test_names_of_midi_files():
    assert set(MIDI_SUFFIXES) >= {".mid", ".midi", ".kar", ".rmi", ".smf"}


_PIECES = (b"\xff\x2f\0", b"MTrk", b"MThd", b"\xff\xff\xff\x7f", b"\xf0\x05\x01", b"\x80" * 9, b"\xff" * 4, b"\x90\xc8")


def _mutated(rng):
    data = bytearray(rng.choice(list(ODD.values())).data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(len(data) + 1)
        change = rng.randrange(5)
        if change == 0:
            data[place : place + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            del data[place : place + rng.choice((1, 2, 5, 50))]
        elif change == 2:
            data[place:place] = rng.choice(_PIECES)
        elif change == 3:
            data[place:place] = data[place : place + rng.randrange(1, 200)]
        else:
            data = data[:place]
    return bytes(data)


def test_mutated_files_are_read_or_refused():
    rng = random.Random(0)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(3000):
        data = _mutated(rng)
        try:
            content = read_content(data, drop_empty=True)
        except MidiError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        validate_notes(content.notes)
        assert content.held()["offset"].max(initial=0.0) <= MOST_SECONDS
    assert min(outcomes.values()) > 500, outcomes


@given(st.binary(max_size=80), st.sampled_from([b"", header(), header() + b"MTrk\0\0\0\x40"]))
def test_any_bytes_are_read_or_refused(data, start):
    try:
        content = read_content(start + data, drop_empty=False)
    except MidiError:
        return
    assert (content.notes["offset"] >= content.notes["onset"]).all()
