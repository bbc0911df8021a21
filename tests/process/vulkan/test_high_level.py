"""The high-level API on Vulkan: allocate, map, copy bytes, share, open in another process."""

from __future__ import annotations

import multiprocessing
import pickle
import queue
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.devices.host import HAS_FDS
from extmem.errors import AccessDeniedError, HandleStateError, LiveViewError, NameNotFoundError, NameTakenError
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, KMT, PEER, W32
from tests.process import workers
from tests.process.vulkan.steps import unshared
from tests.systems import on_linux, on_windows

np = pytest.importorskip("numpy", reason="NumPy is not installed")


def test_it_is_zeroed_shaped_and_written(device: Device) -> None:
    with device.allocate((3, 5, 7), "float32") as memory:
        assert memory.size == 3 * 5 * 7 * 4 <= memory.allocation_size
        assert memory.read().shape == (3, 5, 7) and not memory.read().any()
        array = np.arange(105, dtype="float32").reshape(3, 5, 7)
        memory.write(array)
        assert (memory.read() == array).all() and memory.read().dtype == "float32"
        memory.write(np.full((5, 7), -1, "float32"), offset=5 * 7 * 4)
        assert (memory.read()[1] == -1).all() and (memory.read()[2] == array[2]).all()
        memory.fill(0xFF)
        assert set(memory.read().tobytes()) == {255}


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dedicated", [None, True])
def test_an_array_shows_nothing_of_what_was_freed(device: Device, shared: bool, dedicated: bool | None) -> None:
    types = None if shared else 0
    for size in (64, 4096, 10_000, 1 << 17) * 4:
        with device.allocate_memory(vk.MemoryAllocateInfo(size, 0)) as plain:
            plain.fill(0x55)
        with device.allocate(size, handle_types=types, dedicated=dedicated) as memory:
            assert not memory.read().any()
            memory.fill(0x55)


@pytest.mark.linux_only("memory is exported as fds")
def test_a_software_drivers_exported_memory_is_a_new_file_of_zeros(device: Device) -> None:
    """Memory that is not exported may contain old bytes of this process, and does on Mesa's llvmpipe."""
    for size in (64, 4096, 65_536, 1 << 17) * 4:
        for info in (vk.MemoryAllocateInfo(size, 0), vk.MemoryAllocateInfo(size, 0, vk.ExportMemoryAllocateInfo(FD))):
            with device.allocate_memory(info) as memory:
                assert info.p_next is None or not any(memory.read_bytes(0, size))
                memory.fill(0x55)


def test_what_the_host_sees_is_written_by_both(device: Device, seen_type: int) -> None:
    with device.allocate((3, 5, 7), "float32", memory_type=seen_type) as memory:
        assert memory.host_visible and memory.numpy().shape == (3, 5, 7) and not memory.numpy().any()
        array = np.arange(105, dtype="float32").reshape(3, 5, 7)
        memory.write(array)
        assert (memory.numpy() == array).all() and memory.numpy().dtype == "float32"
        memory.numpy()[1] = -1
        assert (memory.read()[1] == -1).all() and (memory.read()[2] == array[2]).all()


def test_what_the_host_does_not_see_says_how_to_look(device: Device) -> None:
    types = device.memory_properties.memory_types
    hidden = [n for n, kind in enumerate(types) if not kind.property_flags & vk.MemoryPropertyFlagBits.HOST_VISIBLE]
    for kind in hidden:
        with device.allocate_memory(vk.MemoryAllocateInfo(4096, kind)) as memory:
            for look in (memory.map, memory.numpy):
                with pytest.raises(extmem.UnsupportedError, match=r"use memory\.read\(\) and memory\.write\(\)"):
                    look()
            assert not memory.host_visible
            memory.write(b"look")
            assert memory.read_bytes(0, 4) == b"look"
    with unshared(device) as memory:
        memory.write(b"look")
        assert bytes(memory.map()[:4]) == b"look" and memory.host_visible


@pytest.mark.parametrize("size", [1, 3, 1001, 65_537, (16 << 20) + 5])
def test_any_size_will_do(device: Device, size: int) -> None:
    with device.allocate(size) as memory:
        memory.fill(7)
        memory.write(b"!", offset=size - 1)
        found = memory.read()
        assert found.nbytes == size and found[-1] == ord("!") and (found[:-1] == 7).all()
        with pytest.raises(ValueError, match="reach outside the payload"):
            memory.write(b"!", offset=size)
        with pytest.raises(ValueError, match="a byte is 0 to 255"):
            memory.fill(256)


def test_another_process_opens_it_by_name(device: Device, peer: Peer, name: str) -> None:
    with device.allocate((4, 4), "int16", name=name) as memory:
        memory.write(np.arange(16, dtype="int16").reshape(4, 4))
        assert peer("memory = extmem.open(name)\nmemory.device.kind, memory.read().tolist()", name=name) == (
            "vulkan",
            [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]],
        )
        peer("memory.write(bytes([9, 0] * 4))")
        assert memory.read()[0].tolist() == [9, 9, 9, 9]
        peer("memory.fill(1)")
        assert (memory.read() == 0x0101).all()
        with pytest.raises(NameTakenError):
            device.allocate(16, name=name)
    assert peer("memory.read()[0, 0].item()") == 0x0101, "its import keeps the payload, and the name"
    with extmem.open(name) as again:
        assert again.read()[3, 3] == 0x0101
    peer("memory.close()")
    with pytest.raises(NameNotFoundError):
        extmem.open(name)


def test_another_process_maps_it(device: Device, peer: Peer, name: str, seen_type: int) -> None:
    with device.allocate((4, 4), "int16", name=name, memory_type=seen_type) as memory:
        memory.numpy()[:] = np.arange(16, dtype="int16").reshape(4, 4)
        peer("memory = extmem.open(name)", name=name)
        assert peer("memory.numpy()[3].tolist()") == [12, 13, 14, 15]
        peer("memory.numpy()[0] = 9\nNone")
        assert memory.numpy()[0].tolist() == [9, 9, 9, 9] == memory.read()[0].tolist()
        peer("memory.fill(1)\nmemory.close()")
        assert (memory.numpy() == 0x0101).all()


def test_a_process_that_prefers_the_host_device_opens_it_on_vulkan(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory, Peer(env={"EXTMEM_DEVICE": "host"}) as other:
        memory.fill(3)
        assert other("memory = extmem.open(name)\nmemory.device.kind, memory.read().tobytes()", name=name) == (
            "vulkan",
            b"\3" * 64,
        )
        other("memory.close()")


@pytest.mark.parametrize("types", [on_linux(W32 | FD), W32, on_linux(KMT | FD), on_linux(FD), on_windows(KMT)])
def test_it_is_pickled_to_a_child(device: Device, types: vk.ExternalMemoryHandleTypeFlagBits) -> None:
    context = multiprocessing.get_context("spawn")
    answers: Any = context.Queue()
    with device.allocate(64, handle_types=types) as memory:
        memory.write(b"sent")
        child = context.Process(target=workers.look, args=(memory, answers))
        child.start()
        try:
            assert answers.get(timeout=60) == ("memory", b"sent", False, False)
        except queue.Empty:  # the child has written why
            pytest.fail("the child did not answer")
        finally:
            child.join(60)
            child.kill()
        assert child.exitcode == 0
    answers.close()
    answers.join_thread()
    child.close()


def test_it_is_pickled_within_a_process(device: Device) -> None:
    with device.allocate(64) as memory:
        memory.write(b"same")
        with pickle.loads(pickle.dumps(memory)) as other:
            assert other.device.kind == "vulkan" and other.read().tobytes()[:4] == b"same"
            other.write(b"both")
        assert memory.read().tobytes()[:4] == b"both"


HANDLES = [(W32 | FD, W32), (W32 | FD, FD), (KMT | FD, KMT), (KMT | FD, FD)] if HAS_FDS else [(W32, W32), (KMT, KMT)]


def test_handles_of_every_sort_lead_to_it(device: Device) -> None:
    for types, kind in HANDLES:
        with device.allocate(64, handle_types=types) as memory:
            memory.write(b"here")
            handle = memory.export_handle(kind)
            with device.open(handle) as other:
                assert other.read().tobytes()[:4] == b"here"
                other.write(b"gone")
            assert handle.closed == isinstance(handle, extmem.FdHandle), "an fd is consumed, a handle never"
            handle.close()
            assert memory.read().tobytes()[:4] == b"gone"


def test_handles_are_pickled_too(device: Device) -> None:
    for types, kind in ((kind, kind) for kind in (W32, KMT, *([FD] if HAS_FDS else []))):
        with device.allocate(64, handle_types=types) as memory, memory.export_handle(kind) as handle:
            memory.write(b"note")
            with pickle.loads(pickle.dumps(handle)) as arrived, device.open(arrived) as other:
                assert other.read().tobytes()[:4] == b"note"


def test_a_kmt_number_crosses_as_a_number(device: Device, peer: Peer) -> None:
    with device.allocate(64, handle_types=KMT) as memory:
        memory.write(b"kmt!")
        with memory.export_handle(KMT) as handle:
            peer("from extmem import raw")
            peer("memory = device = None\nmemory = extmem.open(raw.kmt_handle(number))", number=int(handle))
        assert peer("memory.read().tobytes()[:4]") == b"kmt!"
        peer("memory.write(b'back')\nmemory.close()")
        assert memory.read().tobytes()[:4] == b"back"


def test_a_read_only_share_is_written_by_its_owner_alone(device: Device, peer: Peer, name: str) -> None:
    with device.allocate(64, name=name, access=extmem.Access.READ) as memory:
        memory.write(b"mine")
        peer("memory = extmem.open(name)", name=name)
        assert peer("memory.read_only, memory.read().tobytes()[:4]") == (True, b"mine")
        for attempt in ("memory.write(b'x')", "memory.fill(1)"):
            error = peer.fails(attempt)
            assert error.is_a(AccessDeniedError) and "read-only in this process" in error.message
        assert peer.fails("extmem.open(name, access=extmem.Access.READ_WRITE)").is_a(AccessDeniedError)
        peer("memory.close()")
        assert memory.read().tobytes()[:4] == b"mine" and not memory.read_only
        memory.write(b"more")


def test_views_of_a_read_only_share_are_read_only(device: Device, peer: Peer, name: str, seen_type: int) -> None:
    with device.allocate(64, name=name, access=extmem.Access.READ, memory_type=seen_type) as memory:
        memory.write(b"mine")
        peer("memory = extmem.open(name)", name=name)
        assert peer("memory.map().readonly, bytes(memory.map()[:4])") == (True, b"mine")
        assert peer.fails("memory.map()[0] = 1").is_a(TypeError)
        assert peer.fails("memory.numpy()[0] = 1").is_a(ValueError)
        peer("memory.close()")
        memory.map()[:4] = b"more"
        assert memory.read().tobytes()[:4] == b"more"


def test_views_keep_it_and_closing_under_them_is_refused(device: Device) -> None:
    memory = unshared(device)
    array = memory.numpy()
    array[:] = 5
    with pytest.raises(LiveViewError, match="of this memory is still alive"):
        memory.close()
    assert memory.read()[0] == 5
    with pytest.raises(HandleStateError, match="are open; close them first"):
        device.close()
    del array
    memory.close()
    with pytest.raises(HandleStateError, match="is closed; allocate or open it again"):
        memory.read()


def test_a_view_that_outlives_a_lost_memory_keeps_the_payload(device: Device) -> None:
    def lose() -> memoryview:
        with pytest.raises(RuntimeError, match="on purpose"), unshared(device) as memory:
            memory.write(b"kept")
            view.append(memory.map())
            raise RuntimeError("on purpose")
        return view.pop()

    view: list[memoryview] = []
    last = lose()
    assert bytes(last[:4]) == b"kept" and device.live_allocations == 1
    last.release()
    del last
    import gc

    gc.collect()
    assert device.live_allocations == 0


def test_the_peer_has_the_words_of_the_specification(device: Device, peer: Peer, name: str) -> None:
    """Specification-level calls in two processes: export under a name here, import by name there."""
    peer(PEER)
    assert peer("device.kind") == "vulkan"
    from tests.behaviours.steps import export, get, put

    with export(device, name=name) as memory:
        put(memory, b"spec")
        assert peer("memory = by_name(device, name)\nget(memory)", name=name) == b"spec"
        peer("put(memory, b'peer')\nmemory.close()\ndevice.close()")
        assert get(memory) == b"peer"
