"""Instruments by name."""

import pretty_midi
import pytest

from mt3core.config.model import ISMIR2021, MT3, VocabularyConfig
from mt3core.errors import UsageError
from mt3core.notes.instrument_choice import DRUMS, Instruments, choose_instruments, for_model

pytestmark = pytest.mark.unit
CLASSES = VocabularyConfig(program_granularity="midi_class")


@pytest.mark.parametrize(
    ("names", "programs", "drums"),
    [
        ("piano,bass,drums", (*range(8), *range(32, 40)), True),
        (" Piano ,  BASS", (*range(8), *range(32, 40)), False),
        ("0,33,drums", (0, 33), True),
        ("violin", (40,), False),
        ("Trumpet", (56,), False),
        ("electric guitar", (26, 27, 28), False),
        ("sax", (64, 65, 66, 67), False),
        ("saxophone", (64, 65, 66, 67), False),
        ("acoustic gr", (0,), False),
        ("chrom", tuple(range(8, 16)), False),
        ("lead 1", (80,), False),
        ("double bass", (43,), False),
        ("drum kit", (), True),
    ],
)
def test_names(names, programs, drums):
    assert choose_instruments(names) == Instruments(programs, drums)
    assert choose_instruments(names.split(",")) == Instruments(programs, drums)


def test_numbers_in_python():
    assert choose_instruments([0, "bass"]) == Instruments((0, *range(32, 40)), False)


def test_every_name_of_general_midi_means_its_own_program():
    for program in range(128):
        name = pretty_midi.program_to_instrument_name(program)
        found = choose_instruments(name).programs
        # "Acoustic Bass" is an instrument; no instrument is called like a class.
        assert found == (program,), name


def test_every_class_means_its_eight_programs():
    for first in range(0, 128, 8):
        found = choose_instruments(pretty_midi.program_to_instrument_class(first)).programs
        assert found == tuple(range(first, first + 8))


def test_nothing_named_is_everything_and_drums_can_be_excluded_and_had_alone():
    assert choose_instruments(None).is_everything
    assert choose_instruments(None, DRUMS) == Instruments(None, False)
    assert choose_instruments(DRUMS) == Instruments((), True)
    assert choose_instruments("piano,drums", "drums,1,2,3,4,5,6,7") == Instruments((0,), False)


@pytest.mark.parametrize(
    ("names", "excluded", "sentence"),
    [
        ("gutar", None, "no instrument 'gutar'. Did you mean guitar"),
        ("qqq", None, "no instrument 'qqq'. mt3 instruments lists"),
        ("vio", None, "'vio' means 2 instruments: Violin, Viola. Write more"),
        ("synth", None, "means 8 instruments: Synth Bass 1, .*, [.]{3}[.]"),
        ("128", None, "no program 128. Programs are numbered from 0 to 127"),
        ("-1", None, "no program -1"),
        ("piano,,bass", None, "nothing between two commas"),
        ("", None, "No instrument is left"),
        ("piano", "piano", "No instrument is left"),
        ("piano", "gutar", "no instrument 'gutar'"),
    ],
)
def test_sentences(names, excluded, sentence):
    with pytest.raises(UsageError, match=sentence):
        choose_instruments(names, excluded)


def test_a_model_of_classes_is_given_whole_classes_and_says_so():
    assert for_model(Instruments((40, 56), True), CLASSES) == (
        Instruments((40, 56), True),
        "This model knows classes of instruments only; the whole class is meant: Strings, Brass.",
    )
    assert for_model(choose_instruments("piano,strings"), CLASSES) == (Instruments((0, 40), False), "")
    assert for_model(choose_instruments("tuba"), CLASSES)[0] == Instruments((56,), False)
    assert for_model(Instruments(None, False), CLASSES) == (Instruments(None, False), "")
    assert for_model(Instruments((41,), True), MT3.vocabulary) == (Instruments((41,), True), "")


def test_a_model_without_instruments_refuses():
    assert for_model(Instruments(), ISMIR2021.vocabulary) == (Instruments(), "")
    with pytest.raises(UsageError, match="does not tell instruments apart"):
        for_model(Instruments((0,), False), ISMIR2021.vocabulary)
