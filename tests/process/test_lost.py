"""Objects that are collected without `close()` warn, are released all the same, and block nothing."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable

import pytest

import extmem
from extmem import errors
from extmem.api import Device
from extmem.testing.children import Child, Peer
from extmem.testing.leaks import object_manager
from extmem.testing.waiting import wait_until
from tests.behaviours.steps import FD, export, fd, get, nt, put


def lost(make: Callable[[], object]) -> list[str]:
    """Return the warnings of the object's collection."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        thing = make()
        del thing
        gc.collect()
    return [f"{w.category.__name__}: {w.message}" for w in seen]


def test_lost_memory_warns_and_is_freed(device: Device) -> None:
    before = object_manager(os.getpid())
    (warning,) = lost(lambda: export(device))
    assert warning.startswith("ResourceWarning: unclosed <DeviceMemory 4096 bytes")
    wait_until(lambda: object_manager(os.getpid()) == before, "lost memory to be given back")


def test_lost_handles_warn_and_are_closed(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as kept:
        (warning,) = lost(lambda: kept.duplicate())
        assert warning.startswith("ResourceWarning: unclosed NtHandle(0x")
        wait_until(lambda: kept.info.handle_count == 1, "the lost handle to be closed")


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_lost_fds_warn(device: Device) -> None:
    with export(device, types=FD) as memory:
        (warning,) = lost(lambda: fd(device, memory))
        assert warning.startswith("ResourceWarning: unclosed FdHandle(0x")


def test_what_was_closed_does_not_warn(device: Device) -> None:
    def closed() -> object:
        with export(device) as memory, nt(device, memory) as handle:
            return memory, handle

    assert lost(closed) == []


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_fds_that_were_taken_do_not_warn(device: Device) -> None:
    with export(device, types=FD) as memory:
        handle = fd(device, memory)
        number = handle.take()
        assert lost(lambda: handle) == []
        os.close(number)


def test_a_view_outlives_the_memory_object_without_a_warning(device: Device) -> None:
    view: memoryview | None = None

    def make() -> None:
        nonlocal view
        memory = export(device)
        put(memory, b"view")
        view = memory.map()

    assert lost(make) == []
    assert view is not None and bytes(view[:4]) == b"view"
    view[:4] = b"more"
    assert bytes(view[:4]) == b"more"
    view = None
    gc.collect()


def test_losing_a_cycle_of_everything_leaks_nothing(device: Device) -> None:
    class Holder:
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        holder = Holder()
        holder.memory = export(device)  # type: ignore[attr-defined]
        holder.handle = nt(device, holder.memory)  # type: ignore[attr-defined]
        holder.array = holder.memory.numpy()  # type: ignore[attr-defined]
        holder.self = holder  # type: ignore[attr-defined]
        del holder
        gc.collect()


def test_a_program_that_closes_nothing_ends_well_and_leaves_nothing(name: str) -> None:
    source = (
        "import sys, extmem\ndevice = extmem.open_device()\n"
        "kept = [device.allocate(64, name=sys.argv[1]), extmem.open_handle(sys.argv[1])]\narray = kept[0].numpy()"
    )
    with Child.python(source, name) as child:
        child.wait()
        assert child.output == ""
    with pytest.raises(FileNotFoundError):
        extmem.open(name)


def test_the_end_of_the_with_block_closes_even_on_an_error(device: Device, peer: Peer) -> None:
    with pytest.raises(KeyError), export(device) as memory:
        put(memory, b"oops")
        raise KeyError
    assert memory.closed
    with pytest.raises(KeyError) as error, export(device) as memory:
        view = memory.map()
        raise KeyError  # the frame of the error keeps the view; the error takes precedence
    assert memory.closed and view[0] == 0
    del view, error
    assert get is not None


WAYS_TO_LOOK: dict[str, Callable[[extmem.DeviceMemory], object]] = {
    "map": lambda memory: memory.map(),
    "numpy": lambda memory: memory.numpy(),
    "np.from_dlpack": lambda memory: pytest.importorskip("numpy").from_dlpack(memory),
    "a part of an array": lambda memory: memory.numpy()[2:3],
}


@pytest.mark.parametrize("again", [True, False], ids=["closed again", "not closed again"])
@pytest.mark.parametrize("way", WAYS_TO_LOOK)
def test_memory_whose_block_failed_under_a_view_is_released(device: Device, name: str, way: str, again: bool) -> None:
    """Where the block ends with an error and an array lives on, the last view or a second `close` releases all."""
    view: object = None
    with pytest.raises(KeyError), export(device, name=name) as memory:
        view = WAYS_TO_LOOK[way](memory)
        raise KeyError
    assert memory.closed and device.live_allocations == 1
    for _ in range(2):
        with pytest.raises(errors.LiveViewError, match="of this memory is still alive"):
            memory.close()
        with pytest.raises(errors.NameTakenError):
            export(device, name=name)
    del view
    gc.collect()
    if again:
        memory.close()
    assert device.live_allocations == 0
    with export(device, name=name):
        pass
    memory.close()
