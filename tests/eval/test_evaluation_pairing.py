"""Which estimate belongs to which reference in two folders, and what is left over."""

from pathlib import Path

import pytest

from mt3core.errors import UsageError
from mt3eval.reading.pairing import pair_files

pytestmark = pytest.mark.unit


def folders(root, reference, estimate):
    for side, names in (("reference", reference), ("estimate", estimate)):
        for name in names:
            path = root / side / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        (root / side).mkdir(exist_ok=True)
    return root / "reference", root / "estimate"


def test_linked_folders_are_entered_once_each(tmp_path):
    for name in ("elsewhere/a.mid", "truth/own/b.mid", "found/link/a.mid", "found/own/b.mid"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("link", "other"):
        (tmp_path / "truth" / name).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "truth/own/round").symlink_to(tmp_path / "truth")
    pairing = pair_files(tmp_path / "truth", tmp_path / "found")
    assert [pair.name for pair in pairing.pairs] == ["link/a", "own/b"]
    assert pairing.references_alone + pairing.estimates_alone == ()


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
    reference, estimate = folders(tmp_path, ["x.mid", "x.notes.tsv"], ["x.mid", "x.json", "x.tsv", "z.mid"])
    with pytest.raises(UsageError, match=r"x\.mid and x\.notes\.tsv have the same name\. .*--reference-suffix \.mid"):
        pair_files(reference, estimate)
    with pytest.raises(UsageError, match=r"x\.json and x\.mid and x\.tsv have the same name.*--estimate-suffix \.json"):
        pair_files(reference, estimate, reference_suffix=".notes.tsv")
    pairing = pair_files(reference, estimate, ".notes.tsv", ".json")
    assert [(pair.reference.name, pair.estimate.name) for pair in pairing.pairs] == [("x.notes.tsv", "x.json")]


def test_of_what_mt3_transcribe_writes_the_json_is_read(tmp_path):
    """On both sides, in folders, for names without a partner too; the suffix still chooses another."""
    reference, estimate = folders(
        tmp_path,
        ["a/x.mid", "a/x.json", "y.MID", "alone.midi", "alone.json"],
        ["x.json", "x.kar", "x.csv", "x.jsonl", "y.mid", "extra.json", "extra.mid"],
    )
    pairing = pair_files(reference, estimate)
    chosen = [(pair.reference, pair.estimate) for pair in pairing.pairs]
    assert chosen == [(reference / "a/x.json", estimate / "x.json"), (reference / "y.MID", estimate / "y.mid")]
    assert (pairing.references_alone, pairing.estimates_alone) == (("alone.json",), ("extra.json",))
    assert {path.name for path in pairing.passed_over} == {
        "x.mid", "alone.midi", "x.kar", "x.csv", "x.jsonl", "extra.mid",
    }  # fmt: skip
    assert pair_files(reference, estimate, ".mid", ".csv").pairs[0].estimate.name == "x.csv"
    assert pair_files(reference, estimate, ".mid", ".csv").passed_over == ()


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


MAESTRO_CSV = (
    "canonical_composer,canonical_title,split,year,midi_filename,audio_filename,duration\nA,B,test,2004,a,a,1\n"
)


def test_lists_of_recordings_beside_the_notes_are_left_aside(tmp_path):
    """As in MAESTRO's folder: they are no references that an estimate is missing for."""
    reference, estimate = folders(tmp_path, ["2004/a.midi", "2004/b.midi"], ["a.mid"])
    (reference / "maestro-v3.0.0.csv").write_text(MAESTRO_CSV)
    (reference / "maestro-v3.0.0.json").write_text('{"canonical_composer": {"0": "A"}, "duration": {"0": 1}}')
    (reference / "maestro-v2.0.0.json").write_text('[{"canonical_composer": "A", "duration": 1}]')
    (estimate / "scores.json").write_text('{"schema_version": 1, "pieces": []}')
    pairing = pair_files(reference, estimate)
    assert pairing.references_alone == (str(Path("2004/b.midi")),)
    assert pairing.references_aside == ("maestro-v2.0.0.json", "maestro-v3.0.0.csv", "maestro-v3.0.0.json")
    assert (pairing.estimates_alone, pairing.estimates_aside) == ((), ("scores.json",))
    # A partner makes it a piece, which cannot be read then.
    (estimate / "maestro-v3.0.0.mid").touch()
    assert pair_files(reference, estimate, ".csv", ".mid").pairs[0].name == "maestro-v3.0.0"


def test_records_beside_the_notes_of_their_name_are_left_aside(tmp_path):
    """As a comparison of systems leaves them: how long each piece took, beside its notes."""
    reference, estimate = folders(tmp_path, ["a.mid", "b.mid"], ["a.mid", "b.mid"])
    for name in "ab":
        (estimate / f"{name}.json").write_text('{"system": "x", "seconds": 1.5}')
    pairing = pair_files(reference, estimate)
    assert [pair.estimate.name for pair in pairing.pairs] == ["a.mid", "b.mid"]
    assert (pairing.estimates_alone, pairing.estimates_aside) == ((), ("a.json", "b.json"))
    assert pairing.passed_over == ()
    (estimate / "b.json").write_text('{"notes": []}')
    assert [pair.estimate.name for pair in pair_files(reference, estimate).pairs] == ["a.mid", "b.json"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("b.csv", "onset,offset,pitch\n1,2,60\n"),
        ("b.csv", "begin,end,note\n1,2,60\n"),  # of another system: an estimate is missing all the same
        ("b.csv", "1,2,60\n"),
        ("b.csv", ""),
        ("b.tsv", "# remark\n\nstart\tname\n"),
        ("b.json", "{"),
        ("b.json", '{"notes": []}'),
        ("b.json", "[]"),
        ("b.json", '[{"start": 1, "midi": 60}]'),
        ("b.json", b"\xff"),
        ("b.txt", "Read me.\n"),
        ("b.midi", "title\n"),
        ("b.mid", MAESTRO_CSV),
    ],
)
def test_what_may_be_notes_is_never_left_aside(tmp_path, name, content):
    reference, estimate = folders(tmp_path, ["a.mid"], ["a.mid"])
    (reference / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    pairing = pair_files(reference, estimate)
    assert (pairing.references_alone, pairing.references_aside) == ((name,), ())


def test_a_table_among_paired_tables_is_never_left_aside(tmp_path):
    reference, estimate = folders(tmp_path, ["a.csv"], ["a.mid"])
    (reference / "b.csv").write_text("title,composer\n")
    assert pair_files(reference, estimate).references_alone == ("b.csv",)


@pytest.mark.parametrize("suffix", ["tsv", ".tsv", ".notes.tsv", "notes.tsv"])
def test_a_suffix_may_lack_its_dot_or_a_part(tmp_path, suffix):
    reference, estimate = folders(tmp_path, ["x.notes.tsv", "x.mid"], ["x.mid"])
    (pair,) = pair_files(reference, estimate, suffix).pairs
    assert (pair.name, pair.reference.name) == ("x", "x.notes.tsv")
