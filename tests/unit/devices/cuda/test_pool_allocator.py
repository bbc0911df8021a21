"""The machine code of the allocator of pools: which functions of the driver it calls, and what it undoes."""

from __future__ import annotations

import ctypes
import platform
from typing import Any

import pytest

from extmem.devices.cuda import pool_allocator
from extmem.errors import UnsupportedError

pytestmark = [
    pytest.mark.linux_only("the code calls C functions as Linux does"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the code is for x86_64"),
]

GRANULE, CUDA, PROPERTIES, ACCESS, ADDRESS, HANDLE = 4096, 0xC0DE, 0x1110, 0x2220, 0x7000_0000, 0x55
WORD = ctypes.c_uint64
ARGUMENTS = {
    "cuMemCreate": 4,
    "cuMemRelease": 1,
    "cuMemAddressReserve": 5,
    "cuMemAddressFree": 2,
    "cuMemMap": 5,
    "cuMemUnmap": 2,
    "cuMemSetAccess": 4,
    "cuCtxPushCurrent": 1,
    "cuCtxPopCurrent": 1,
    "cuCtxSynchronize": 0,
}


class Driver:
    """C functions in place of the driver's, which record their calls."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[tuple[Any, ...]] = []
        self.functions = {
            name: ctypes.CFUNCTYPE(ctypes.c_int, *[WORD] * count)(self._function(name))
            for name, count in ARGUMENTS.items()
        }
        addresses = {name: ctypes.cast(one, ctypes.c_void_p).value or 0 for name, one in self.functions.items()}
        context = pool_allocator.Context(addresses, (CUDA, GRANULE, 3, PROPERTIES, ACCESS))
        allocate, deallocate = pool_allocator.functions(context.address)
        self.allocate = ctypes.CFUNCTYPE(WORD, ctypes.c_size_t, ctypes.c_int, WORD)(allocate)
        self.deallocate = ctypes.CFUNCTYPE(None, WORD, ctypes.c_size_t, ctypes.c_int, WORD)(deallocate)

    def _function(self, name: str) -> Any:
        def call(*arguments: int) -> int:
            if name in ("cuMemCreate", "cuMemAddressReserve", "cuCtxPopCurrent"):
                WORD.from_address(arguments[0]).value = HANDLE if name == "cuMemCreate" else ADDRESS
                arguments = arguments[1:]
            self.calls.append((name, *arguments))
            return 2 if name == self.failing else 0

        return call


MADE = [
    ("cuCtxPushCurrent", CUDA),
    ("cuMemCreate", 2 * GRANULE, PROPERTIES, 0),
    ("cuMemAddressReserve", 2 * GRANULE, 0, 0, 0),
    ("cuMemMap", ADDRESS, 2 * GRANULE, 0, HANDLE, 0),
    ("cuMemSetAccess", ADDRESS, 2 * GRANULE, ACCESS, 1),
    ("cuMemRelease", HANDLE),
    ("cuCtxPopCurrent",),
]


def test_an_allocation_is_one_of_the_driver() -> None:
    driver = Driver()
    assert driver.allocate(GRANULE + 1, 3, 0) == ADDRESS
    assert driver.calls == MADE


@pytest.mark.parametrize("size", [4 << 30, (4 << 30) - 1])
def test_four_gibibytes_are_one_allocation(size: int) -> None:
    driver = Driver()
    assert driver.allocate(size, 3, 0) == ADDRESS
    assert driver.calls[1] == ("cuMemCreate", 4 << 30, PROPERTIES, 0)


def test_it_is_freed_after_the_work_of_the_gpu() -> None:
    driver = Driver()
    driver.deallocate(ADDRESS, GRANULE + 1, 3, 0)
    assert driver.calls == [
        ("cuCtxPushCurrent", CUDA),
        ("cuCtxSynchronize",),
        ("cuMemUnmap", ADDRESS, 2 * GRANULE),
        ("cuMemAddressFree", ADDRESS, 2 * GRANULE),
        ("cuCtxPopCurrent",),
    ]


@pytest.mark.parametrize(
    ("failing", "undone"),
    [
        ("cuMemCreate", []),
        ("cuMemAddressReserve", ["cuMemRelease"]),
        ("cuMemMap", ["cuMemAddressFree", "cuMemRelease"]),
        ("cuMemSetAccess", ["cuMemUnmap", "cuMemAddressFree", "cuMemRelease"]),
    ],
)
def test_what_fails_is_undone_and_returns_null(failing: str, undone: list[str]) -> None:
    driver = Driver(failing)
    assert not driver.allocate(GRANULE + 1, 3, 0)
    assert [call[0] for call in driver.calls][-1 - len(undone) :] == [*undone, "cuCtxPopCurrent"]
    assert [call[0] for call in driver.calls][: -1 - len(undone)][-1] == failing


def test_another_device_no_bytes_and_too_many_return_null() -> None:
    driver = Driver()
    assert not driver.allocate(GRANULE, 2, 0)
    assert not driver.allocate(0, 3, 0)
    assert not driver.allocate((1 << 64) - 1, 3, 0)
    assert not driver.calls
    broken = Driver("cuCtxPushCurrent")
    assert not broken.allocate(GRANULE, 3, 0)
    assert broken.calls == [("cuCtxPushCurrent", CUDA)]


def test_nothing_that_was_not_unmapped_is_given_back() -> None:
    driver = Driver("cuMemUnmap")
    driver.deallocate(ADDRESS, GRANULE, 3, 0)
    assert [call[0] for call in driver.calls][-2:] == ["cuMemUnmap", "cuCtxPopCurrent"]
    driver = Driver()
    driver.deallocate(0, GRANULE, 3, 0)
    assert [call[0] for call in driver.calls] == ["cuCtxPushCurrent", "cuCtxPopCurrent"]


def test_other_machines_are_refused_with_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(UnsupportedError, match=r"riscv64.*make_shareable\(\)"):
        pool_allocator.functions(1)
