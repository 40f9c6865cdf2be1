"""Config files by name, and their fields changed by `path=value`."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mt3core.config import files as config_files
from mt3core.config.data import DatasetChoice
from mt3core.config.files import apply_changes, find_config, list_configs, load_config, shipped_folder
from mt3core.config.model import ISMIR2021, MULTITRACK
from mt3core.config.training import TrainingConfig
from mt3core.config.values import parse_value
from mt3core.errors import UsageError

pytestmark = pytest.mark.unit

BASE = TrainingConfig("base")
MINE = '''"""Mine.

More about it.
"""

from mt3core.config.training import TrainingConfig

config = TrainingConfig("mine", num_steps=7)
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder, with a config of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.py").write_text(MINE)
    return tmp_path


def changed(*changes):
    return apply_changes(BASE, changes)


# ---- Files


def test_a_config_is_found_by_name_here_first_then_among_those_shipped(here):
    assert load_config("mine").num_steps == 7
    assert load_config("mine", ["num_steps=9"]).num_steps == 9
    assert find_config("mt3") == shipped_folder() / "mt3.py"
    (here / "configs/mt3.py").write_text(MINE)
    assert load_config("mt3").name == "mine"
    assert load_config(str(shipped_folder() / "mt3.py")).name == "mt3"


def test_the_list_has_names_and_first_lines_and_runs_nothing(here):
    (here / "configs/broken.py").write_text("def (")
    (here / "configs/_private.py").write_text(MINE)
    listed = {path.stem: line for path, line in list_configs()}
    assert listed["mine"] == "Mine."
    assert listed["broken"] == "(cannot be read: SyntaxError)"
    assert "_private" not in listed
    assert {"mt3", "multitrack_test", "piano"} <= listed.keys()


def test_configs_that_are_not_there_are_answered_with_those_that_are(here):
    with pytest.raises(UsageError, match=r"Unknown config 'min'\. Choose mine, .*mt3"):
        load_config("min")
    with pytest.raises(UsageError, match=r"There is no config file nowhere/x\.py\."):
        load_config("nowhere/x.py")
    (here / "mini.py").write_text(MINE)
    with pytest.raises(UsageError, match=r"Unknown config 'mini'\. .*--config mini\.py\."):
        load_config("mini")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('odd')\n", r"broken\.py, line 2, cannot be loaded: ValueError: odd\. Correct it\."),
        ("import nothing_of_this_name\n", r"line 1, cannot be loaded: ModuleNotFoundError"),
        ("config = (\n", r"line 1, cannot be loaded: SyntaxError"),
        ("settings = 3\n", r"broken\.py defines no config\. It must define config = TrainingConfig"),
        ("config = 3\n", "defines no config"),
    ],
)
def test_files_that_define_no_config(here, text, message):
    (here / "broken.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config("broken.py")


def test_what_cannot_work_together_is_refused(here):
    with pytest.raises(UsageError, match="100 examples cannot be divided into 3 equal microbatches"):
        load_config("mine", ["batch.examples=100", "batch.accumulation=3"])
    with pytest.raises(UsageError, match=r"'\.\./x' is not a valid name for a run"):
        load_config("mine", ["name=../x"])


# ---- Changes


def test_changes_of_every_type():
    config = changed(
        "batch.examples=64",
        "num_steps = 1e4",
        "optimizer.learning_rate=3e-4",
        "compute.remat=true",
        "compute.dtype=bfloat16",
        "data.manifest=/data/with=sign",
        "data.datasets=maestro,slakh",
        "data.augmentation.gain_db=-3, 0.5",
        "model=multitrack",
        "model.network.num_heads=4",
        "model.network.mlp_activations=gelu,linear",
    )
    assert (config.batch.examples, config.num_steps, config.compute.remat) == (64, 10_000, True)
    assert type(config.num_steps) is int
    assert (config.optimizer.learning_rate, config.compute.dtype) == (3e-4, "bfloat16")
    assert config.data.manifest == "/data/with=sign"
    assert config.data.datasets == (DatasetChoice("maestro"), DatasetChoice("slakh"))
    assert config.data.augmentation.gain_db == (-3.0, 0.5)
    assert config.model.name == "multitrack"
    network = dataclasses.replace(MULTITRACK.network, num_heads=4, mlp_activations=("gelu", "linear"))
    assert config.model.network == network
    untouched = ("safety", "checkpoint", "validation", "report", "finish", "loss", "seed")
    assert all(getattr(config, name) == getattr(BASE, name) for name in untouched)


def test_the_order_matters_only_where_one_field_is_changed_twice():
    together = changed("model.network.input_bands=128", "model.spectrogram.mel_bands=128")
    assert together.model.spectrogram.mel_bands == 128
    assert changed("model.network.emb_dim=64", "model=ismir2021").model.vocabulary == ISMIR2021.vocabulary
    assert changed("seed=1", "seed=2").seed == 2
    assert changed("data.datasets=").data.datasets == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch.exampels=3", r"A training config has no field 'batch\.exampels'\. batch has the fields examples, "),
        ("steps=3", r"A training config has no field 'steps'\. It has the fields num_steps, .*optimizer"),
        ("seed.x=3", r"There is no field 'seed\.x': seed is a single value\. Write seed=3\."),
        ("seed", r"--set seed is not of the form PATH=VALUE\. Write for example batch"),
        ("=3", "--set =3 is not of the form PATH=VALUE"),
        ("batch=3", r"batch cannot be set to '3'\. Use a value for one of its fields: examples, "),
        ("batch.examples=6.5", r"batch\.examples cannot be set to '6\.5'\. Use a whole number\."),
        ("batch.examples=many", "Use a whole number"),
        ("batch.examples=", "Use a whole number"),
        ("optimizer.learning_rate=fast", r"optimizer\.learning_rate cannot be set to 'fast'\. Use a number\."),
        ("optimizer.learning_rate=nan", "Use a number"),
        ("compute.remat=maybe", "Use true or false"),
        ("optimizer.kind=sgd", "Use adafactor or adamw"),
        ("data.datasets=maestro,,slakh", "Use the name of a data set, or several separated by commas"),
        ("data.augmentation.gain_db=1", "Use 2 values separated by commas, each a number"),
        ("model=mt4", r"Use the name of a preset \(mt3, ismir2021, multitrack\)"),
        (
            "model.network.emb_dim=7",
            r"emb_dim=7 is not valid: network\.emb_dim is 7\. Use an even number",
        ),
        ("model.network.input_bands=64", "is not valid: The network reads 64 bands, the spectrogram has 512"),
    ],
)
def test_changes_that_cannot_be(change, message):
    with pytest.raises(UsageError, match=message):
        changed(change)


def _leaves(values, prefix=""):
    for field in dataclasses.fields(values):
        value = getattr(values, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value


def _text(value):
    return ",".join(getattr(one, "name", str(one)) for one in value) if isinstance(value, tuple) else str(value)


def test_every_field_can_be_given_the_value_it_has():
    config = load_config("multitrack_full")
    paths = dict(_leaves(config))
    assert len(paths) > 80
    same = apply_changes(config, [f"{path}={_text(value)}" for path, value in paths.items()])
    assert dict(_leaves(same)) == paths


@dataclasses.dataclass(frozen=True)
class _Fields:
    whole: int
    number: float
    switch: bool
    either: Literal["a", "b"]
    perhaps: float | None
    pair: tuple[float, float]
    many: tuple[int, ...]


@given(
    st.integers(),
    st.floats(allow_nan=False),
    st.booleans(),
    st.none() | st.floats(allow_nan=False),
    st.lists(st.integers()),
)
def test_values_come_back_from_their_text(whole, number, switch, perhaps, many):
    assert parse_value(_Fields, "whole", "x", str(whole)) == whole
    assert parse_value(_Fields, "number", "x", repr(number)) == number
    assert parse_value(_Fields, "switch", "x", str(switch)) is switch
    assert parse_value(_Fields, "perhaps", "x", str(perhaps)) == perhaps
    assert parse_value(_Fields, "pair", "x", f"({number!r}, {whole / 7 if abs(whole) < 1e9 else 0})")[0] == number
    assert parse_value(_Fields, "many", "x", ",".join(map(str, many))) == tuple(many)


@given(st.text())
def test_no_text_is_taken_for_a_value_of_another_type(text):
    for name, kind in (("whole", int), ("number", float), ("switch", bool), ("either", str)):
        try:
            value = parse_value(_Fields, name, "x", text)
        except UsageError:
            continue
        assert type(value) is kind
        assert not (kind is float and math.isnan(value))


def test_the_folder_of_the_repository_is_the_one_shipped():
    assert shipped_folder() == Path(config_files.__file__).resolve().parents[2] / "configs"
