"""One import: the high-level API returns what is open already; the specification's calls always make another."""

from __future__ import annotations

import pytest

import extmem
from extmem.api import Device
from extmem.testing.leaks import descriptors
from tests.behaviours.steps import FD, W32, by_name, export, get, import_any, nt, put


def test_opening_twice_gives_the_same_memory(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory, extmem.open(name) as first, extmem.open(name) as second:
        assert first.record is second.record and first.record is not memory.record
        before = len(descriptors())
        with extmem.open(name.upper()) as third:
            assert third.record is first.record, "the object counts, not the spelling"
        with memory.export_handle(W32) as handle, extmem.open(handle) as fourth:
            assert fourth.record is first.record
        assert len(descriptors()) == before
        first.close()
        second.write(b"here")
        assert memory.read().tobytes()[:4] == b"here"


def test_what_was_closed_is_imported_anew(device: Device, name: str) -> None:
    with device.allocate(64, name=name):
        with device.open(name) as first:
            record = first.record
        with device.open(name) as second:
            assert second.record is not record


def test_every_device_has_an_import_of_its_own(device: Device, name: str) -> None:
    with extmem.open_device(kind="vulkan") as other, device.allocate(64, name=name) as memory:
        with device.open(name) as here, other.open(name) as there:
            assert here.record is not there.record and here.device is not there.device
            there.write(b"one payload")
            assert here.read().tobytes()[:11] == memory.read().tobytes()[:11] == b"one payload"


def test_the_specifications_call_makes_a_distinct_memory_object_each_time(device: Device, name: str) -> None:
    with export(device, name=name) as memory, nt(device, memory) as handle:
        put(memory, b"spec")
        with by_name(device, name) as a, by_name(device, name) as b, import_any(device, handle, kind=W32) as c:
            records = {id(m.record) for m in (memory, a, b, c)}
            raws = {m.record.allocation.raw for m in (memory, a, b, c)}  # type: ignore[attr-defined]  # Vulkan
            assert len(records) == len(raws) == 4
            assert get(a) == get(b) == get(c) == b"spec"
            a.close()
            assert get(b) == b"spec"


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_an_fd_makes_a_distinct_memory_object_too(device: Device) -> None:
    with device.allocate(64) as memory:
        with device.open(memory.export_handle(FD)) as a, device.open(memory.export_handle(FD)) as b:
            assert a.record is not b.record
            a.write(b"fd")
            assert b.read().tobytes()[:2] == memory.read().tobytes()[:2] == b"fd"
