"""Several threads at once: devices, the manager and names can be used in all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import extmem
from extmem import errors
from extmem.api import Device
from extmem.testing.children import Child
from extmem.testing.runtime import Runtime
from tests.behaviours.steps import by_name, export, get, import_win32, nt, put

THREADS, ROUNDS = 8, 25


def together(work: Callable[[int], None]) -> None:
    """Run `work(index)` in all threads, started at once; raise what any of them raised."""
    barrier, failures = threading.Barrier(THREADS), list[BaseException]()

    def run(index: int) -> None:
        try:
            barrier.wait()
            work(index)
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            failures.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_each_with_names_of_its_own(device: Device, name: str) -> None:
    def work(index: int) -> None:
        data = bytes([index] * 4)
        for turn in range(ROUNDS):
            own = f"{name} {index} {turn}"
            with export(device, name=own) as memory, nt(device, memory) as handle, handle.duplicate() as other:
                put(memory, data)
                with by_name(device, own) as a, import_win32(device, other) as b:
                    assert get(a) == get(b) == data

    together(work)


def test_all_open_one_name(device: Device, name: str) -> None:
    with export(device, name=name) as memory:
        put(memory, b"ours")

        def work(index: int) -> None:
            for _ in range(ROUNDS):
                with extmem.open(name) as other, extmem.open_handle(name) as handle:
                    assert get(other) == b"ours" and handle.access

        together(work)


def test_one_wins_a_name_and_the_others_get_an_error(device: Device, name: str) -> None:
    won, lost = list[extmem.DeviceMemory](), list[int]()

    def work(index: int) -> None:
        try:
            won.append(export(device, name=name))
        except errors.NameTakenError:
            lost.append(index)

    together(work)
    assert (len(won), len(lost)) == (1, THREADS - 1)
    won[0].close()


def test_handles_of_one_object_from_all_threads(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle:

        def work(index: int) -> None:
            for _ in range(ROUNDS):
                with handle.duplicate(inherit=bool(index % 2)) as other:
                    assert other.same_object(handle)

        together(work)
        assert handle.info.handle_count == 1


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_threads_lose_is_released(device: Device) -> None:
    def work(index: int) -> None:
        for _ in range(5):
            memory = export(device)
            _ = nt(device, memory)

    together(work)
    # The leak check at the end of every test here shows that nothing is left.


# What is opened twice is imported and mapped once, and the last close releases it: each read here is of memory that
# another thread is about to release.
LOOKING = """
import sys, threading, extmem
way, rounds = sys.argv[1], int(sys.argv[2])
device = extmem.open_device(kind="host")
memory = device.allocate(4096, "uint8", name="the same")
memory.map()[:] = b"\\x05" * 4096
def opened(look):
    with extmem.open("the same") as other:
        return look(other)
def by_handle():
    with extmem.open_handle("the same") as handle, device.open(handle) as other:
        return bytes(other.map())
WAYS = {
    "map": lambda: opened(lambda other: bytes(other.map())),
    "read_bytes": lambda: opened(lambda other: bytes(other.read_bytes())),
    "a handle": by_handle,
}
wrong = []
def work():
    try:
        for _ in range(rounds):
            if WAYS[way]() != b"\\x05" * 4096:
                raise ValueError("other bytes")
    except BaseException as error:
        wrong.append(f"{type(error).__name__}: {error}")
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(wrong or "right")
"""


@pytest.mark.parametrize(("way", "rounds"), [("map", 20_000), ("read_bytes", 20_000), ("a handle", 500)])
def test_threads_that_open_one_name_look_at_it_and_close_it(own_runtime: Runtime, way: str, rounds: int) -> None:
    """They run in a process of their own: unmapping during a read ends it with SIGSEGV."""
    with Child.python(LOOKING, way, str(rounds), env=own_runtime.environment) as child:
        child.wait()
        assert child.output.strip() == "right"
