"""The workers of the demo and the benchmarks: answers, failures, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from extmem.cli._worker import Worker, WorkerError
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until


@pytest.fixture
def worker() -> Iterator[Worker]:
    with closing(Worker("helper")) as one:
        yield one


def test_a_task_returns_its_value_from_another_process(worker: Worker) -> None:
    assert worker.call("os:getpid") == worker.pid != os.getpid()


@pytest.mark.linux_only("Windows's processes have no names of their own")
def test_it_has_a_name_that_ps_shows(worker: Worker) -> None:
    worker.call("os:getpid")
    assert Path(f"/proc/{worker.pid}/comm").read_text().strip() == "extmem helper"


def test_a_failing_task_is_told_and_the_next_one_works(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"the helper \(pid \d+\) failed: FileNotFoundError: .*nowhere"):
        worker.call("os:listdir", "/nowhere")
    assert worker.call("os:getppid") == os.getpid()


def test_a_task_that_does_not_exist_is_reported(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="AttributeError"):
        worker.call("os:no_such_function")


def test_a_worker_that_dies_is_reported_with_its_exit_code(worker: Worker) -> None:
    with pytest.raises(WorkerError, match=r"has ended with exit code 7"):
        worker.call("os:_exit", 7)


def test_a_worker_that_does_not_answer_is_reported(worker: Worker) -> None:
    with pytest.raises(WorkerError, match="did not reply within 0.05 s"):
        worker.call("time:sleep", 30, deadline=0.05)


def test_ctrl_c_means_nothing_to_it(worker: Worker) -> None:
    assert worker.call("signal:getsignal", int(signal.SIGINT)) == signal.SIG_IGN


@pytest.mark.linux_only("process groups are Linux's; on Windows children are started so that they ignore Ctrl-C")
def test_ctrl_c_does_not_reach_it(worker: Worker) -> None:
    worker.call("os:getpid")
    assert os.getpgid(worker.pid) != os.getpgid(0)


def test_it_ends_when_its_owner_hangs_up() -> None:
    with closing(Worker("helper")) as worker:
        worker.call("os:getpid")
        worker.leave()
        assert worker.process.returncode == 0


def test_closing_ends_it_whatever_it_does() -> None:
    with closing(Worker("helper")) as worker:
        worker.start("time:sleep", 1000)
        began = time.monotonic()
    assert worker.process.returncode is not None
    assert time.monotonic() - began < 60


def test_no_worker_outlives_an_owner_that_is_killed() -> None:
    with Runtime() as house, closing(Worker("owner", house.environment)) as owner:
        inner = owner.call("tests.process.cli.nested:start")
        assert inner in house.processes()
        owner.kill()
        wait_until(lambda: inner not in house.processes(), "the inner worker to end")


@pytest.mark.linux_only("on Windows a task runs to its end")
@pytest.mark.parametrize("task", ["start_busy", "spawn_busy"])
def test_no_worker_outlives_its_owner_in_the_middle_of_a_task(task: str) -> None:
    with Runtime() as house, closing(Worker("owner", house.environment)) as owner:
        inner = owner.call(f"tests.process.cli.nested:{task}")
        assert inner in house.processes()
        owner.kill()
        wait_until(lambda: inner not in house.processes(), "the inner process to end")


@pytest.mark.linux_only("on Windows a task runs to its end")
def test_a_process_whose_parent_has_ended_before_it_looks_ends(worker: Worker) -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    with pytest.raises(WorkerError, match="has ended with exit code 1"):
        worker.call("extmem.cli._worker:end_with", gone.pid)


@pytest.mark.linux_only("on Windows a task runs to its end")
def test_a_process_whose_parent_lives_goes_on(worker: Worker) -> None:
    worker.call("extmem.cli._worker:end_with", os.getpid())
    assert worker.call("os:getppid") == os.getpid()
