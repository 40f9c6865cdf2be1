"""Several processes that train together, as far as one can tell alone: who finds whom, and how they stop."""

import os
import signal
import sys
import types

import jax
import pytest

from mt3core.errors import TrainingError, UsageError
from mt3jax.training.run import hosts, stopping
from mt3jax.training.run.stopping import EXIT_FINISHED, EXIT_INTERRUPTED, EXIT_SAVED, StopSignals

pytestmark = pytest.mark.unit


@pytest.fixture
def no_cluster(monkeypatch):
    """As where JAX finds nothing that has started several processes."""

    def initialize(*arguments, **options):
        raise ValueError("Number of processes must be defined.")

    for name in (hosts.COORDINATOR, hosts.NUM_PROCESSES, hosts.PROCESS_ID):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hosts.jax, "distributed", types.SimpleNamespace(is_initialized=bool, initialize=initialize))


def test_a_process_is_alone_unless_the_environment_says_otherwise(no_cluster, monkeypatch):
    hosts.join_hosts()
    monkeypatch.setenv(hosts.COORDINATOR, "localhost:1234")
    with pytest.raises(UsageError, match=r"cannot be found: Number of processes must be defined\. Set JAX_NUM"):
        hosts.join_hosts()
    monkeypatch.setenv(hosts.NUM_PROCESSES, "two")
    with pytest.raises(UsageError, match="cannot be found: "):
        hosts.join_hosts()


@pytest.mark.parametrize("trouble", [TrainingError("No room."), OSError("no such device")])
def test_what_the_first_process_could_not_do_stops_the_others(monkeypatch, trouble):
    told = []
    monkeypatch.setattr(hosts, "said_by_first_process", lambda flag: told.append(flag) or flag)

    def action():
        raise trouble

    with pytest.raises(type(trouble)):
        hosts.first_process_does(action)
    assert told == [True]


@pytest.fixture
def two_processes(monkeypatch):
    """As if there were another process; SIGTERM, which JAX would see, makes the two agree on step 7."""
    seen = []
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    agreed = types.SimpleNamespace(reached_preemption_sync_point=lambda step: bool(seen) and step >= 7)
    monkeypatch.setattr(stopping, "multihost_utils", agreed)
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    yield seen
    signal.signal(signal.SIGTERM, before)


def test_one_of_several_processes_passes_an_interruption_on(two_processes):
    said = []
    with StopSignals(said.append) as stop:
        assert not stop.must_stop(5)
        os.kill(os.getpid(), signal.SIGINT)
        assert two_processes == [signal.SIGTERM]
        assert "saving" in said[0]
        assert [stop.must_stop(6), stop.must_stop(7)] == [False, True]
        assert stop.exit_code == EXIT_INTERRUPTED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_others_stop_as_after_a_sigterm(two_processes):
    with StopSignals(print) as stop:
        assert stop.exit_code == EXIT_FINISHED
        os.kill(os.getpid(), signal.SIGTERM)
        assert [stop.must_stop(6), stop.must_stop(7)] == [False, True]
    assert stop.exit_code == EXIT_SAVED


@pytest.fixture
def terminal(monkeypatch):
    """A terminal that standard error goes to; its other end, to be closed."""
    ours, theirs = os.openpty()
    stream = os.fdopen(theirs, "w", buffering=1)
    monkeypatch.setattr(sys, "__stderr__", stream)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield ours, stream
    signal.signal(signal.SIGHUP, before)
    stream.close()


def test_a_closed_terminal_stops_a_run_as_a_sigterm_does(terminal):
    other_end, stream = terminal
    with StopSignals(lambda line: print(line, file=stream)) as stop:
        os.close(other_end)
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)  # of shell and system
        print("still saving", file=stream)
        assert stop.must_stop(1)
        assert stop.exit_code == EXIT_SAVED
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_kept_running_without_a_terminal_goes_on(terminal):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # by nohup
    with StopSignals(print) as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.must_stop(1)
