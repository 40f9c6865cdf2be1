"""Several processes that train together, as far as one can tell alone: who finds whom, and how they stop."""

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import jax
import pytest

from mt3core.errors import TrainingError, UsageError
from mt3jax.training.run import hosts, meeting, stopping
from mt3jax.training.run.meeting import Job
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


@pytest.mark.parametrize(
    ("address", "count", "number", "message"),
    [
        ("", "2", "0", "cannot be found: JAX_COORDINATOR_ADDRESS is missing. Set JAX_COORDINATOR_ADDRESS (host:port"),
        ("localhost:1234", "2", "", "JAX_PROCESS_ID is missing."),
        ("localhost:1234", " ", "0", "JAX_NUM_PROCESSES is missing."),
        ("", "", "0", "JAX_COORDINATOR_ADDRESS and JAX_NUM_PROCESSES is missing."),
        ("localhost:1234", "two", "0", "JAX_NUM_PROCESSES is 'two', not a whole number."),
        ("localhost:1234", "2", "1.0", "JAX_PROCESS_ID is '1.0', not a whole number."),
        ("localhost:1234", "2", "-1", "JAX_PROCESS_ID is '-1', not a whole number."),
        ("localhost:1234", "2", "2", "JAX_PROCESS_ID is 2, but there are 2 processes (JAX_NUM_PROCESSES). Number them"),
        ("localhost:1234", "0", "0", "JAX_NUM_PROCESSES is 0. Use the number of processes, at least 1."),
        ("localhost", "2", "0", "JAX_COORDINATOR_ADDRESS is 'localhost', not a host and a port."),
        ("localhost:http", "2", "0", "JAX_COORDINATOR_ADDRESS is 'localhost:http', not a host and a port."),
        ("localhost:70000", "2", "0", "JAX_COORDINATOR_ADDRESS is 'localhost:70000', not a host and a port."),
        (":1234", "2", "0", "JAX_COORDINATOR_ADDRESS is ':1234', not a host and a port."),
    ],
)
def test_wrong_variables_get_sentences(no_cluster, monkeypatch, address, count, number, message):
    for name, value in zip(
        (hosts.COORDINATOR, hosts.NUM_PROCESSES, hosts.PROCESS_ID), (address, count, number), strict=True
    ):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError) as caught:
        hosts.join_hosts()
    assert message in str(caught.value)


def test_the_job_of_the_variables(monkeypatch):
    for address, host in (("node-1:12345", "node-1"), ("[::1]:12345", "::1")):
        monkeypatch.setenv(hosts.COORDINATOR, address)
        monkeypatch.setenv(hosts.NUM_PROCESSES, "3")
        monkeypatch.setenv(hosts.PROCESS_ID, "2")
        assert hosts.job_of_environment() == Job(host, 12345, 3, 2)


def test_device_numbers_that_are_none(no_cluster, monkeypatch):
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "0,gpu1")
    with pytest.raises(UsageError, match=r"JAX_LOCAL_DEVICE_IDS is '0,gpu1'\. Use numbers"):
        hosts.join_hosts()


def test_waiting_in_a_cluster_is_said_and_ends(monkeypatch, no_cluster):
    """JAX alone would be silent, hear no Ctrl-C, and end the program."""
    said, is_over = [], threading.Event()
    slow = types.SimpleNamespace(is_initialized=bool, initialize=lambda **options: is_over.wait(20) and None)
    monkeypatch.setattr(hosts.jax, "distributed", slow)
    monkeypatch.setattr(hosts, "QUIET_SECONDS", 0.0)
    monkeypatch.setattr(hosts, "MOST_SECONDS", 0.5)
    with pytest.raises(TrainingError, match=r"Gave up after 0 s: the other processes of this job did not come\."):
        hosts.join_hosts(said.append)
    is_over.set()
    assert [line[:30] for line in said] == ["Waiting for the other processe"]


def jobs(count, port=None):
    if port is None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
    return [Job("localhost", port, count, number) for number in range(count)]


def meet_all(*these, most_seconds=20.0):
    """What each process says and how it ends: None, or its error."""
    ends = {}

    def one(place, job):
        said = []
        try:
            meeting.meet(job, said.append, most_seconds)
            ends[place] = (said, None)
        except (TrainingError, UsageError) as error:
            ends[place] = (said, error)

    threads = [threading.Thread(target=one, args=pair) for pair in enumerate(these)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return [ends[place] for place in range(len(these))]


def test_processes_meet_in_any_order_and_leave_the_port_free():
    all_jobs = jobs(4)
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        assert meet_all(*(all_jobs[number] for number in order)) == [([], None)] * 4
    with socket.create_server(("localhost", all_jobs[0].port)):
        pass
    assert meet_all(*jobs(1)) == [([], None)]


def test_who_is_missing_is_said_and_given_up_in_words(monkeypatch):
    monkeypatch.setattr(meeting, "_QUIET_SECONDS", 0.0)
    first, second, third, fourth = jobs(4)
    (said, error), (_, told) = meet_all(first, third, most_seconds=2.0)
    assert "processes (JAX_PROCESS_ID 1, " in said[0]
    assert "(Ctrl-C ends it now)" in said[0]
    assert error.problem == (
        f"Gave up after 2 s: 2 of 4 processes (JAX_PROCESS_ID 1, 3) did not come to {first.address}."
    )
    assert "Start all of them with the same address" in error.next_step
    assert error.problem in str(told)
    ((said, error),) = meet_all(second, most_seconds=1.0)
    assert said[0].startswith(f"Waiting for process 0 at {first.address}; giving up in 1 s")
    assert error.problem.startswith(f"Gave up after 1 s: process 0 was not found at {first.address} (")
    assert fourth.number == 3


def test_numbers_that_contradict_each_other_are_named_by_all():
    first, second, third = jobs(3)
    ends = meet_all(first, second, second)
    assert {str(error).split(". ")[0] for _, error in ends} == {"Two processes have JAX_PROCESS_ID=1"}
    ends = meet_all(first, dataclasses.replace(third, count=5))
    assert all("Process 2 has JAX_NUM_PROCESSES=5, and process 0 has 3." in str(error) for _, error in ends)


def test_a_second_process_0_is_told_that_the_port_is_taken():
    first, *_ = jobs(2)
    with socket.create_server(("", first.port), family=socket.AF_INET6, dualstack_ipv6=True):
        ((_, error),) = meet_all(first)
    assert f"cannot wait for the others at port {first.port}: Address already in use. If another" in str(error)


def test_other_programs_and_those_who_leave_do_not_count():
    first, second, third = jobs(3)
    ends = []
    thread = threading.Thread(target=lambda: ends.extend(meet_all(first)))
    thread.start()
    for line in (b"GET / HTTP/1.1\n\n", b"mt3-process 1 3\n"):  # a browser, and a process that is then stopped
        deadline = time.monotonic() + 20
        while True:
            try:
                with socket.create_connection(("localhost", first.port), timeout=5) as connection:
                    connection.sendall(line)
                break
            except ConnectionError:
                assert time.monotonic() < deadline
    assert [error for _, error in meet_all(second, third)] == [None, None]
    thread.join(60)
    assert [error for _, error in ends] == [None]


def test_waiting_hears_ctrl_c(tmp_path):
    program = tmp_path / "wait.py"
    program.write_text(
        "from mt3jax.training.run import hosts, meeting\n"
        "meeting._QUIET_SECONDS = 0.0\n"
        "try:\n"
        "    hosts.join_hosts(lambda line: print(line, flush=True))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    ((job, _),) = (jobs(2),)
    variables = {
        hosts.COORDINATOR: job.address,
        hosts.NUM_PROCESSES: "2",
        hosts.PROCESS_ID: "0",
        "JAX_PLATFORMS": "cpu",
    }
    with subprocess.Popen(
        [sys.executable, str(program)], env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline().startswith("Waiting for 1 of 2 processes (JAX_PROCESS_ID 1) at ")
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "interrupted\n"
        assert process.returncode == 0


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
