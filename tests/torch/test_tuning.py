"""What is measured on a processor is measured once."""

import json

import pytest

torch = pytest.importorskip("torch")

from tiny_networks import random_arrays, tiny  # noqa: E402

from mt3core.files import cache_folder  # noqa: E402
from mt3torch import Transcriber, build_model, tuning  # noqa: E402

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(tuning, "LEAST_WIDTH", 1)
    return build_model(tiny(), random_arrays(tiny()), "cpu")


@pytest.fixture
def measured(monkeypatch):
    calls = []

    def measure(network, attention, dtype):
        calls.append(dtype)
        return {"folded": 1.0, "plain": 3.0, "query first": 4.0, "keys first": 3.0}

    monkeypatch.setattr(tuning, "measure", measure)
    return calls


def test_all_forms_are_timed(model):
    attention = model.decoder.layers[0].encoder_decoder_attention
    found = tuning.measure(tiny().network, attention, torch.float32)
    assert sorted(found) == ["folded", "keys first", "plain", "query first"]
    assert all(0 < time < 60_000 for time in found.values())


def test_the_faster_one_is_chosen_and_remembered(model, measured):
    for _ in range(2):
        stepper = Transcriber(model)._stepper
        assert (stepper.is_folded, stepper.is_query_first) == (True, False)
    assert measured == [torch.float32]
    assert tuning.fastest_forms(model, torch.bfloat16) == (True, False)
    assert len(measured) == 2
    file = cache_folder() / tuning.FILE_NAME
    known = json.loads(file.read_text())
    assert len(known) == 2
    others = {"folded": 3, "plain": 2, "query first": 1, "keys first": 2}
    file.write_text(json.dumps(dict.fromkeys(known, others)))
    stepper = Transcriber(model)._stepper
    assert (stepper.is_folded, stepper.is_query_first) == (False, True)
    assert len(measured) == 2


def test_mt3_doctor_shows_it(model, measured, capsys):
    from mt3app.cli import run

    tuning.fastest_forms(model, torch.float32)
    run(["doctor"])
    assert "folded 1 ms, plain 3 ms, query first 4 ms, keys first 3 ms" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", '{"x": 3}', '{"x": {"folded": "fast"}}'])
def test_a_broken_file_is_measured_again(model, measured, content):
    cache_folder().mkdir(parents=True)
    (cache_folder() / tuning.FILE_NAME).write_text(content)
    assert tuning.fastest_forms(model, torch.float32).is_folded
    assert len(measured) == 1
    assert len(tuning.known_measurements()) == 1


def test_a_cache_that_cannot_be_written_is_no_error(model, measured):
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    cache_folder().write_text("a file")
    assert tuning.fastest_forms(model, torch.float32).is_folded


def test_narrow_networks_are_not_measured(measured, monkeypatch):
    model = build_model(tiny(), random_arrays(tiny()), "cpu")
    assert tiny().network.emb_dim < tuning.LEAST_WIDTH
    assert tuning.fastest_forms(model, torch.float32) == (False, True)
    assert not measured


def test_what_an_older_version_measured_is_passed_over(model, measured):
    cache_folder().mkdir(parents=True)
    key = tuning._key(model.config.network, torch.float32)
    older = key.replace(f"version {tuning.FORMS_VERSION}", "version 2")
    (cache_folder() / tuning.FILE_NAME).write_text(json.dumps({older: {"folded": 3, "plain": 2}}))
    assert older != key
    assert tuning.fastest_forms(model, torch.float32).is_folded
    assert list(tuning.known_measurements()) == [key]
