"""The machine code that a stream calls on the host: it raises the value, wakes the waiters, and tells of its end."""

from __future__ import annotations

import ctypes
import platform
import threading
from pathlib import Path

import pytest

import extmem
from extmem.devices.cuda import host_function

pytestmark = pytest.mark.linux_only("the code makes a system call of Linux")


def call(prepared: host_function.Call) -> None:
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(host_function.function_address())(prepared.address)


def addresses(memory: ctypes.Array[ctypes.c_uint64]) -> tuple[int, int]:
    return ctypes.addressof(memory), ctypes.addressof(memory) + 8


@pytest.mark.parametrize(("before", "value", "after"), [(3, 9, 9), (9, 3, 9), (9, 9, 9), (1, (1 << 64) - 1, -1)])
def test_the_value_is_raised_and_never_lowered(before: int, value: int, after: int) -> None:
    memory = (ctypes.c_uint64 * 2)(before, 0xFFFF_FFFF)
    prepared = host_function.prepare(addresses(memory)[0], value, addresses(memory)[1])
    assert not prepared.done
    call(prepared)
    assert prepared.done and memory[0] == after % (1 << 64)
    assert memory[1] == 0, "the sequence wraps, and the word behind it is not touched"
    host_function.release(prepared)


def test_calls_of_many_threads_lose_nothing() -> None:
    memory = (ctypes.c_uint64 * 2)()
    at, sequence = addresses(memory)
    calls = [host_function.prepare(at, value, sequence) for value in range(1, 401)]
    threads = [
        threading.Thread(target=lambda part=calls[first::4]: [call(one) for one in part])  # type: ignore[misc]
        for first in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert memory[0] == 400 and memory[1] == 400 and all(one.done for one in calls)
    for one in calls:
        host_function.release(one)


def test_whoever_sleeps_on_the_sequence_wakes() -> None:
    from extmem.devices.host.timeline_page import create_page, open_page

    file = create_page(1)
    page = open_page(file)
    reached = []
    waiter = threading.Thread(target=lambda: reached.append(page.wait(5)))
    waiter.start()
    prepared = host_function.prepare(page.address, 5, page.sequence)
    call(prepared)
    waiter.join(10)
    assert reached == [True] and page.value == 5
    host_function.release(prepared)
    file.close()


def test_a_cancelled_call_is_done_and_its_record_is_used_again() -> None:
    memory = (ctypes.c_uint64 * 2)()
    first = host_function.prepare(addresses(memory)[0], 1, addresses(memory)[1])
    first.cancel()
    assert first.done and not memory[0]
    host_function.release(first)


def test_a_machine_without_code_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    host_function.function_address.cache_clear()
    with pytest.raises(extmem.UnsupportedError, match="riscv64.*signal on the host"):
        host_function.function_address()
    monkeypatch.undo()
    assert host_function.function_address()


def test_no_memory_is_writable_and_executable() -> None:
    address = host_function.function_address()
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(bound, 16) for bound in line.split()[0].split("-"))
        if first <= address < last:
            assert line.split()[1].startswith("r-x")
            return
    pytest.fail("the function is not mapped")
