"""Freezing memory in one process. `tests/process/test_freeze.py` has several processes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem.api import DeviceMemory
from extmem.core import freezing, shared_devices
from extmem.devices.host import memfd
from extmem.errors import AccessDeniedError, HandleStateError, LiveViewError, UnsupportedError
from tests import cuda_bed


@pytest.fixture
def memory() -> Iterator[DeviceMemory]:
    with extmem.open_device(kind="host") as device, device.allocate(16) as made:
        yield made


def test_it_is_final_and_the_contents_stay(memory: DeviceMemory) -> None:
    memory.fill(3)
    assert not memory.frozen and not memory.read_only
    memory.freeze()
    memory.freeze()
    assert memory.frozen and memory.read_only and memory.tobytes() == bytes([3]) * 16
    with pytest.raises(AccessDeniedError, match="cannot fill this memory .* frozen"):
        memory.fill(1)
    with memory.map() as view:
        assert view.readonly and bytes(view) == bytes([3]) * 16
    with memory.stable() as look:
        pass
    assert look.changed is False and memory.generation == 0


def test_blocks_that_have_ended_do_not_prevent_it(memory: DeviceMemory) -> None:
    update, look = memory.update(), memory.stable()
    with update:
        pass
    with look:
        pass
    memory.freeze()
    assert memory.frozen and update.generation == 2


def test_a_hold_of_this_process_prevents_it_and_nothing_has_changed(memory: DeviceMemory) -> None:
    with memory.map() as view:
        with pytest.raises(LiveViewError, match="while this process uses it"):
            memory.freeze()
        view[0] = 1
    with memory.use(), pytest.raises(LiveViewError):
        memory.freeze()
    memory.fill(2)
    with memory.update():
        pass
    memory.freeze()


def test_others_that_begin_to_use_it_meanwhile_are_told(memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[BaseException] = []

    def attempt() -> None:
        try:
            memory.tobytes()
        except HandleStateError as error:
            found.append(error)

    real = freezing._seal

    def seal(record: object) -> bool:
        thread = threading.Thread(target=attempt)
        thread.start()
        thread.join()
        return real(record)  # type: ignore[arg-type]

    monkeypatch.setattr(freezing, "_seal", seal)
    memory.freeze()
    assert "another thread freezes this memory" in str(found[0]) and memory.tobytes() == bytes(16)


def test_an_exception_during_the_seal_leaves_the_memory_as_it_was(
    memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(record: object) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(freezing, "_seal", interrupt)
        with pytest.raises(KeyboardInterrupt):
            memory.freeze()
    assert not memory.frozen
    memory.fill(5)
    memory.freeze()
    assert memory.frozen


def test_a_close_during_the_seal_releases_the_memory(memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    def close(record: object) -> bool:
        memory.close()
        return False

    monkeypatch.setattr(freezing, "_seal", close)
    with pytest.raises(HandleStateError, match="closed"):
        memory.freeze()
    assert memory.closed


def test_a_close_after_the_seal_is_no_error(memory: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    alone, ended = DeviceMemory.alone, []

    def and_close(self: DeviceMemory, *arguments: Any) -> Any:
        sealed = alone(self, *arguments)
        closing = threading.Thread(target=self.close)
        closing.start()
        closing.join()
        ended.append(sealed)
        return sealed

    with extmem.share(b"x" * 16, "read"), extmem.open("read") as reading:
        shared = extmem.share(b"y" * 16, "frozen", access=extmem.Access.READ_WRITE)
        with extmem.open("frozen", access=extmem.Access.READ) as other:
            monkeypatch.setattr(DeviceMemory, "alone", and_close)
            shared.freeze()
            assert ended == [True] and other.frozen and not reading.frozen
            with pytest.raises(HandleStateError):
                shared.freeze()


def test_lent_memory_and_memory_that_takes_no_seals_are_refused(memory: DeviceMemory) -> None:
    memory.record.moved = lambda: ""
    with pytest.raises(UnsupportedError, match="lent by a framework"):
        memory.freeze()
    memory.record.moved = None
    import fcntl

    fd = memory.record.allocation.fd
    assert fd is not None
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL)
    with pytest.raises(UnsupportedError, match="takes no more seals"):
        memory.freeze()
    assert not memory.frozen
    memory.fill(1)


def test_memory_of_a_host_pointer_is_never_frozen() -> None:
    import ctypes
    import mmap

    from extmem import vk

    with mmap.mmap(-1, mmap.PAGESIZE) as pages, extmem.open_device(kind="host") as device:
        octets = (ctypes.c_char * mmap.PAGESIZE).from_buffer(pages)
        pointer = vk.ImportMemoryHostPointerInfoEXT(
            vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION_EXT, ctypes.addressof(octets)
        )
        with device.allocate_memory(vk.MemoryAllocateInfo(mmap.PAGESIZE, 0, pointer)) as memory:
            assert memory.frozen is False
            with pytest.raises(UnsupportedError, match="no control page"):
                memory.freeze()
        del octets


def test_the_pages_of_timelines_take_no_seals() -> None:
    import fcntl

    file = memfd.create(64, b"")
    try:
        with pytest.raises(PermissionError):
            memfd.seal(file.fd)
        assert not memfd.is_sealed(file.fd) and fcntl.fcntl(file.fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SEAL
    finally:
        file.close()


def test_memory_of_a_gpu_is_frozen_by_its_control_page() -> None:
    name = f"frozen-gpu-{os.getpid()}"
    with (
        cuda_bed.both(),
        shared_devices.fresh_devices(),
        extmem.open_device(kind="cuda") as device,
        device.allocate(64, name=name, access=extmem.Access.READ_WRITE) as memory,
        device.open(name, access=extmem.Access.READ) as reader,
    ):
        memory.write(b"\7" * 64)
        with device.open(name, access=extmem.Access.READ_WRITE), pytest.raises(LiveViewError, match="open for writing"):
            memory.freeze()
        with memory.update():
            pass
        memory.freeze()
        assert memory.frozen and reader.frozen and memory.generation == reader.generation == 2
        assert reader.wait(after=2, timeout=60) == 2
        for refused in (lambda: memory.fill(1), lambda: memory.write(b"x"), memory.update):
            with pytest.raises(AccessDeniedError, match="frozen"):
                refused()
        with pytest.raises(AccessDeniedError, match="frozen"):
            device.open(name, access=extmem.Access.READ_WRITE)
        with device.open(name) as other:
            assert other.read_only and reader.tobytes() == b"\7" * 64
