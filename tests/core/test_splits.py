"""Which split a folder stands for, and what is said of a data set that lacks one."""

import pytest

from mt3core.splits import split_of_folders, splits_remark

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("folders", "split"),
    [
        (["a", "Train"], "train"),
        (["VAL", "test"], "validation"),
        (["dev"], "validation"),
        (["testing", "x"], "test"),
        (["training set"], None),
        ([], None),
    ],
)
def test_folders_that_name_a_split(folders, split):
    assert split_of_folders(folders) == split


@pytest.mark.parametrize(
    ("splits", "remark"),
    [
        (["train", "validation"], ""),
        ([], ""),
        (["train"] * 3, "All 3 songs are in the split train: training goes on without validation. To change this, "
         "put some into folders called validation."),
        (["test"], "The only one of the songs is in the split test: there is nothing to train with. To change this, "
         "put some into folders called train and validation."),
        (["test", "validation"], "None of the songs is in train: there is nothing to train with. To change this, "
         "put some into folders called train."),
        (["test", "train"], "None of the songs is in validation: training goes on without validation. To change this, "
         "put some into folders called validation."),
    ],
)  # fmt: skip
def test_a_data_set_without_a_split_is_remarked_on(splits, remark):
    assert splits_remark(splits, "songs") == remark


def test_another_way_to_change_splits():
    assert splits_remark(["train"], "songs", "write {} into the table").endswith("write validation into the table.")
