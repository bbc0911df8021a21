"""The result of a worker exists after the worker has ended; what cannot be received raises in the caller."""

from __future__ import annotations

import asyncio
import inspect
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import extmem
from extmem import errors
from extmem.api import Device
from extmem.testing.children import python_environment
from extmem.testing.waiting import DEADLINE
from scripts.public_members import public_members
from tests.behaviours.steps import export, get
from tests.process import workers

pytestmark = pytest.mark.linux_only("on Windows a reference in flight is its sender's, and ends with it")
spawn = multiprocessing.get_context("spawn")


def got(memory: extmem.DeviceMemory) -> bytes:
    with memory:
        return get(memory)


# -- results of workers that have ended


def test_from_a_queue_whose_sender_has_ended() -> None:
    queue = spawn.Queue()
    process = spawn.Process(target=workers.put_and_end, args=(queue, b"done"))
    process.start()
    process.join(DEADLINE)
    assert process.exitcode == 0
    process.close()
    assert got(queue.get(timeout=DEADLINE)) == b"done"
    queue.close()
    queue.join_thread()


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_from_a_pool_whose_workers_end_with_each_task(method: str) -> None:
    with multiprocessing.get_context(method).Pool(2, maxtasksperchild=1) as pool:
        results = [pool.apply_async(workers.make, (b"n%03d" % number,)) for number in range(12)]
        assert [got(result.get(DEADLINE)) for result in results] == [b"n%03d" % number for number in range(12)]
        assert sorted(map(got, pool.map(workers.make, [b"a...", b"b..."], 1))) == [b"a...", b"b..."]
        pool.close()
        pool.join()


FORKSERVER = """
import multiprocessing, extmem
from tests.process import workers
if __name__ == "__main__":
    with multiprocessing.get_context("forkserver").Pool(2, maxtasksperchild=1) as pool:
        for memory in pool.map(workers.make, [b"n%03d" % n for n in range(6)], 1):
            with memory: print(bytes(memory.map()[:4]).decode())
"""


def run(tmp_path: Path, source: str, *arguments: str) -> str:
    """Return the output of a program that children may import as their main module."""
    script = tmp_path / "program.py"
    script.write_text(source)
    environment = python_environment()
    environment["PYTHONPATH"] += f":{Path(__file__).parents[2]}"
    done = subprocess.run(
        [sys.executable, str(script), *arguments], timeout=60, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_a_pool_of_a_fork_server(tmp_path: Path) -> None:
    assert run(tmp_path, FORKSERVER).split() == [f"n{number:03d}" for number in range(6)]


def test_from_an_executor_whose_workers_end_with_each_task() -> None:
    with ProcessPoolExecutor(2, mp_context=spawn, max_tasks_per_child=1) as executor:
        futures = [executor.submit(workers.make, b"n%03d" % number) for number in range(8)]
        assert [got(future.result(DEADLINE)) for future in futures] == [b"n%03d" % number for number in range(8)]


@pytest.mark.parametrize(("make", "kind"), [(workers.make_handle, "nt"), (workers.make_fd, "fd")])
def test_handles_of_workers_that_have_ended(make: Callable[[bytes], Any], kind: str) -> None:
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        result = pool.apply_async(make, (b"hand",)).get(DEADLINE)
        pool.close()
        pool.join()
    assert workers.describe_and_close(result)[:2] == (kind, b"hand")


WRITE = """
import pickle, sys
from tests.process import workers
if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file: pickle.dump({"results": [workers.make(b"file")] * 2}, file)
"""


def test_from_a_file_as_task_runners_pass_results(tmp_path: Path) -> None:
    """As with joblib, dask and others: the result is pickled by one process, which ends, and read by another."""
    path = tmp_path / "result"
    run(tmp_path, WRITE, str(path))
    first, second = pickle.loads(path.read_bytes())["results"]
    assert first is second and got(first) == b"file"


def test_an_array_of_a_worker_that_has_ended() -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    with spawn.Pool(1, maxtasksperchild=1) as pool:
        memory = pool.apply_async(_array).get(DEADLINE)
        pool.close()
        pool.join()
    with memory:
        assert numpy.array_equal(memory.numpy(), numpy.full((3, 4), 1.5))


def _array() -> extmem.DeviceMemory:
    memory = extmem.open_device(kind="host").allocate((3, 4), "float64")
    memory.numpy()[:] = 1.5
    return memory


# -- what cannot be received


@pytest.mark.parametrize("kind", ["memory", "nt", "fd"])
def test_a_result_that_cannot_be_received_raises_in_the_caller(kind: str) -> None:
    """The thread that reads a pool's results goes on."""
    with spawn.Pool(1) as pool:
        result = pool.apply_async(workers.make_too_late, (kind,)).get(DEADLINE)
        assert result.closed and "not received" in repr(result)
        with pytest.raises(errors.InvalidHandleError, match="Send the object again"):
            workers.describe(result)
        assert got(pool.apply_async(workers.make, (b"next",)).get(DEADLINE)) == b"next"
        pool.close()
        pool.join()
    result.close()


def test_an_executor_goes_on_too() -> None:
    with ProcessPoolExecutor(1, mp_context=spawn) as executor:
        result = executor.submit(workers.make_too_late, "memory").result(DEADLINE)
        with pytest.raises(errors.InvalidHandleError):
            result.map()
        assert got(executor.submit(workers.make, b"next").result(DEADLINE)) == b"next"


def late(device: Device, kind: str) -> Any:
    with export(device) as memory:
        thing: Any = memory
        if kind == "nt":
            thing = memory.export_handle()
        elif kind == "fd":
            with device.allocate(4) as other:
                thing = other.export_handle(extmem.vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
        text = pickle.dumps(thing)
        pickle.loads(text).close()
        if thing is not memory:
            thing.close()
    return pickle.loads(text)


ARGUMENTS: dict[str, tuple[Any, ...]] = {"write": (b"x",), "duplicate": (), "fill": (1,)}
HARMLESS = {"closed", "close", "payload", "table"}
TYPES = {"memory": extmem.DeviceMemory, "nt": extmem.NtHandle, "fd": extmem.FdHandle}


@pytest.mark.parametrize("kind", TYPES)
def test_every_public_operation_reports_why(device: Device, kind: str) -> None:
    """An operation that is added later is tested without an edit."""
    base = TYPES[kind]
    thing = late(device, kind)
    assert isinstance(thing, base) and thing.closed
    raised = 0
    for name in public_members(base):
        if name in HARMLESS:
            continue
        with pytest.raises(errors.InvalidHandleError, match="claimed before"):
            verb = getattr(thing, name)
            wanted = [p for p in inspect.signature(verb).parameters.values() if p.default is p.empty and p.kind < 2]
            found = verb(*ARGUMENTS.get(name, (None,) * len(wanted)))
            if inspect.iscoroutine(found):
                asyncio.run(found)
            if hasattr(found, "__enter__"):
                found.__enter__()
        raised += 1
    assert raised >= (20 if kind == "memory" else 3)
    for call in (lambda: thing.__enter__(), lambda: pickle.dumps(thing), lambda: extmem.open(thing)):
        with pytest.raises((errors.InvalidHandleError, TypeError)):
            call()
    thing.close()
    thing.close()


def test_what_can_be_received_raises_nothing(device: Device) -> None:
    with export(device) as memory:
        other = pickle.loads(pickle.dumps(memory))
        assert type(other) is extmem.DeviceMemory and not other.closed
        other.close()


# -- errors of workers


@pytest.mark.parametrize(
    ("work", "argument", "kind"),
    [
        (workers.open_missing, "nobody has this", errors.NameNotFoundError),
        (workers.open_missing, "", errors.NameInvalidError),
        (workers.break_a_rule, 4096, errors.RuleViolation),
    ],
)
@pytest.mark.parametrize("crew", ["pool", "executor"])
def test_an_error_of_a_worker_reaches_the_caller(
    crew: str, work: Callable[[Any], Any], argument: object, kind: type[Exception]
) -> None:
    """And it does not end the thread that reads the results, for which the caller would wait for ever."""
    if crew == "pool":
        with spawn.Pool(1) as pool:
            with pytest.raises(kind) as caught:
                pool.apply_async(work, (argument,)).get(DEADLINE)
            assert got(pool.apply_async(workers.make, (b"next",)).get(DEADLINE)) == b"next"
    else:
        with ProcessPoolExecutor(1, mp_context=spawn) as executor:
            with pytest.raises(kind) as caught:
                executor.submit(work, argument).result(DEADLINE)
            assert got(executor.submit(workers.make, b"next").result(DEADLINE)) == b"next"
    with pytest.raises(kind) as own:
        work(argument)
    assert str(caught.value) == str(own.value) and caught.value.violations == own.value.violations
