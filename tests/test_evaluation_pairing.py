"""Which estimate belongs to which reference in two folders, and what is left over."""

from pathlib import Path

import pytest

from mt3core.errors import UsageError
from mt3core.evaluation.pairing import pair_files

pytestmark = pytest.mark.unit


def folders(root, reference, estimate):
    for side, names in (("reference", reference), ("estimate", estimate)):
        for name in names:
            path = root / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (root / side).mkdir(exist_ok=True)
    return root / "reference", root / "estimate"


def test_names_match_without_their_suffixes(tmp_path):
    reference, estimate = folders(
        tmp_path,
        ["b/x.notes.tsv", "a.1.mid", "caf\u00e9.MID", "2004/deep.midi", "alone.mid", ".hidden.mid", "a.wav"],
        ["b/x.mid", "a.1.json", "cafe\u0301.csv", "deep.mid", "extra.mid", "more/extra2.mid"],
    )
    pairing = pair_files(reference, estimate)
    assert [pair.name for pair in pairing.pairs] == ["2004/deep", "a.1", "b/x", "caf\u00e9"]
    assert pairing.pairs[2].reference == reference / "b/x.notes.tsv"
    assert pairing.pairs[0].estimate == estimate / "deep.mid"
    assert pairing.references_alone == ("alone.mid",)
    assert pairing.estimates_alone == ("extra.mid", str(Path("more/extra2.mid")))


def test_two_files_of_one_name_are_never_chosen_from(tmp_path):
    reference, estimate = folders(tmp_path, ["x.mid", "x.notes.tsv", "y.mid", "y.json"], ["x.mid", "x.json", "z.mid"])
    with pytest.raises(UsageError, match=r"x\.mid and x\.notes\.tsv have the same name\. .*--reference-suffix \.mid"):
        pair_files(reference, estimate)
    with pytest.raises(UsageError, match=r"x\.json and x\.mid have the same name.*--estimate-suffix \.json"):
        pair_files(reference, estimate, reference_suffix=".notes.tsv")
    pairing = pair_files(reference, estimate, ".notes.tsv", ".json")
    assert [(pair.reference.name, pair.estimate.name) for pair in pairing.pairs] == [("x.notes.tsv", "x.json")]


def test_two_files_are_a_pair_whatever_their_names(tmp_path):
    reference, estimate = folders(tmp_path, ["truth.mid"], ["found.json"])
    (pair,) = pair_files(reference / "truth.mid", estimate / "found.json").pairs
    assert (pair.name, pair.estimate.name) == ("truth", "found.json")


def test_what_does_not_match_is_listed_in_both_directions(tmp_path):
    reference, estimate = folders(tmp_path, ["a.mid", "b.mid"], ["c.mid"])
    with pytest.raises(UsageError, match=r"Only in the first: a\.mid, b\.mid\. Only in the second: c\.mid\."):
        pair_files(reference, estimate)
    with pytest.raises(UsageError, match="is a file, the other a folder"):
        pair_files(reference, estimate / "c.mid")
    with pytest.raises(UsageError, match="does not exist"):
        pair_files(reference, estimate / "d.mid")
