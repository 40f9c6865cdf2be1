"""Work in several processes: its order, its errors, and what becomes of processes that are ended."""

import os

import pytest
from process_work import ends, refuses, waits, waits_and_writes

from mt3core.errors import OutputError, ProcessError
from mt3core.processes import map_in_processes

pytestmark = pytest.mark.integration


def _interrupts(item, result):
    raise KeyboardInterrupt


def test_results_have_the_order_of_the_items_and_done_is_called_as_they_come():
    told = []
    results = map_in_processes(waits, [1.0, 0.0], 2, "waited", lambda item, result: told.append((item, result[0])))
    assert [seconds for seconds, _ in results] == [1.0, 0.0]
    assert told == [(0.0, 0.0), (1.0, 1.0)]
    assert os.getpid() not in {process for _, process in results}


def test_one_process_is_this_one():
    assert {process for _, process in map_in_processes(waits, [0.0, 0.0], 1, "waited")} == {os.getpid()}
    assert map_in_processes(waits, [], 4, "waited") == []


def test_a_process_that_is_ended_is_one_sentence():
    with pytest.raises(ProcessError, match="A process that counted was killed") as caught:
        map_in_processes(ends, [0, 1], 2, "counted")
    assert "fewer --processes" in caught.value.next_step


def test_an_error_of_the_work_is_raised_as_it_is():
    with pytest.raises(OutputError, match="cannot be written"):
        map_in_processes(refuses, [0, 1], 2, "refused")


def test_an_interrupt_waits_for_nobody(tmp_path):
    items = [(0.0, tmp_path / "first"), (20.0, tmp_path / "second")]
    with pytest.raises(KeyboardInterrupt):
        map_in_processes(waits_and_writes, items, 2, "waited", _interrupts)
    assert [path.name for path in tmp_path.iterdir()] == ["first"]
