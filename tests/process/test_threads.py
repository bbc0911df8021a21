"""Eight threads at once: devices, the manager and names may be used from all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

import extmem
from extmem import errors
from extmem.memory import Device
from tests.behaviours.steps import by_name, export, get, import_win32, nt, put

THREADS, ROUNDS = 8, 25


def together(work: Callable[[int], None]) -> None:
    """Run `work(index)` in all threads, begun at once; raise what any of them raised."""
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


def test_one_wins_a_name_and_the_others_are_told(device: Device, name: str) -> None:
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
def test_what_threads_lose_is_given_back(device: Device) -> None:
    def work(index: int) -> None:
        for _ in range(5):
            memory = export(device)
            _ = nt(device, memory)

    together(work)
    # The leak check that every test here ends with sees that nothing is left.
