"""What programs pass for names, rights, shapes and numbers, and what closed or copied memory does."""

from __future__ import annotations

import copy
import inspect
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest

import extmem
from extmem import vk
from extmem.api import Device


class Text(str):
    """Like NumPy's strings: an instance of str, but not exactly str, which is encoded without a check."""

    def __str__(self) -> str:
        return "something else"


@pytest.mark.parametrize("kind", [numpy.str_, Text])
def test_names_may_be_of_a_subclass_of_str(device: Device, name: str, kind: type[str]) -> None:
    with device.allocate(4, name=kind(name)) as memory:
        assert type(memory.name) is str and memory.name == name
        memory.write(b"name")
        with extmem.open(kind(name)) as other, device.open(kind(name)) as third:
            assert other.read_bytes() == third.read_bytes() == b"name"
            assert type(third.name) is str
        with extmem.open(kind(name), access=extmem.Access.READ) as other:
            assert other.read_only
        with extmem.open_handle(kind(name)) as handle, extmem.open(handle) as other:
            assert other.read_bytes() == b"name"
        with pytest.raises(extmem.NameTakenError):
            device.allocate(4, name=kind(name))
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open(kind(name))


def test_names_of_the_specifications_structures_too(device: Device, name: str) -> None:

    types = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
    win32 = vk.ExportMemoryWin32HandleInfoKHR(None, int(extmem.Access.READ_WRITE), numpy.str_(name))
    export = vk.ExportMemoryAllocateInfo(types, win32)
    with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, export)), extmem.open_handle(numpy.str_(name)) as handle:
        assert handle.same_object(handle)
        source = vk.ImportMemoryWin32HandleInfoKHR(types, None, numpy.str_(name))
        with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, source)) as other:
            assert other.size == 4096


@pytest.mark.parametrize("strange", [Path("x"), b"x", 5, ["x"]])
def test_a_name_of_another_type_is_refused(device: Device, strange: Any) -> None:
    with pytest.raises(TypeError, match="name is .*; give a str"):
        device.allocate(4, name=strange)
    with pytest.raises(TypeError, match="name is .*; give a str"):
        extmem.open_handle(strange)
    with pytest.raises(TypeError, match="name is None; give the name of the shared object"):
        extmem.open_handle(None)  # type: ignore[arg-type]
    for opening in (extmem.open, device.open):
        with pytest.raises(TypeError, match="pass a name"):
            opening(strange)


@pytest.mark.parametrize("strange", ["r", "READ", 1.0, [1]])
def test_rights_of_another_type_are_refused(device: Device, name: str, strange: Any) -> None:
    with pytest.raises(TypeError, match=r"access is .*; give extmem\.Access\.READ"):
        device.allocate(4, name=name, access=strange)
    with device.allocate(4, name=name):
        for opening in (extmem.open, device.open, extmem.open_handle):
            with pytest.raises(TypeError, match=r"access is .*; give extmem\.Access\.READ"):
                opening(name, access=strange)


@pytest.mark.parametrize("strange", [-1, 1 << 32, 1 << 70, numpy.int64(-5)])
def test_rights_of_more_than_32_bits_are_refused(device: Device, name: str, strange: Any) -> None:
    with pytest.raises(ValueError, match=r"access is -?\d+, and an access mask has 32 bits"):
        device.allocate(4, name=name, access=strange)
    with device.allocate(4, name=name):
        for opening in (extmem.open, device.open, extmem.open_handle):
            with pytest.raises(ValueError, match="an access mask has 32 bits"):
                opening(name, access=strange)


@pytest.mark.parametrize("strange", ["x", "OPAQUE_WIN32", 1.0, [1]])
def test_handle_types_of_another_type_are_refused(device: Device, strange: Any) -> None:
    with pytest.raises(
        TypeError, match=r"handle_types is .*; give bits of extmem\.vk\.ExternalMemoryHandleTypeFlagBits"
    ):
        device.allocate(4, handle_types=strange)


@pytest.mark.parametrize("strange", [-1, 1 << 31, 1 << 40])
def test_handle_types_of_too_many_bits_are_refused(device: Device, strange: int) -> None:
    with pytest.raises(ValueError, match=rf"handle_types is {strange}, and flags have 31 bits"):
        device.allocate(4, handle_types=strange)


def test_handle_types_of_any_integer_type_are_taken(device: Device) -> None:
    nt = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32
    for types in (nt, int(nt), numpy.uint32(int(nt))):
        with device.allocate(4, handle_types=types) as memory, memory.export_handle(nt) as handle:
            assert handle.info.granted_access


def test_rights_of_any_integer_type_are_taken(device: Device, name: str) -> None:
    with device.allocate(4, name=name, access=numpy.uint32(int(extmem.Access.READ))):
        with extmem.open(name, access=numpy.uint32(int(extmem.Access.READ))) as other:
            assert other.read_only
        with extmem.open_handle(name, numpy.uint32(int(extmem.Access.READ))) as handle:
            assert handle.info.granted_access


def test_a_name_that_grants_nothing_is_refused(device: Device, name: str) -> None:
    with pytest.raises(ValueError, match="access=0 grants nothing"):
        device.allocate(4, name=name, access=0)
    with pytest.raises(extmem.NameNotFoundError):
        extmem.open(name)
    device.allocate(4, access=0).close()  # without a name there is nothing to open


@pytest.mark.parametrize("shape", [(2.5, 3), 2.5, "23", b"23", ("2", 3), None, (None,), [[1]], {"a": 1}])
def test_a_shape_of_what_are_no_whole_numbers_is_refused(device: Device, shape: Any) -> None:
    with pytest.raises(TypeError, match="shape.* is .*whole number"):
        device.allocate(shape)


@pytest.mark.parametrize("shape", [numpy.int64(5), 5, (5,), [5], numpy.array([5]), range(5, 6), iter([5]), True + 4])
def test_a_shape_is_of_any_integer_type(device: Device, shape: Any) -> None:
    with device.allocate(shape, "int16") as memory:
        assert memory.descriptor.array is not None
        assert memory.descriptor.array.shape == (5,) and type(memory.descriptor.array.shape[0]) is int
        assert memory.numpy().shape == (5,)


def test_places_and_values_are_of_any_integer_type(device: Device) -> None:
    with device.allocate(8) as memory:
        memory.fill(numpy.uint8(7))
        assert memory.read_bytes(numpy.int64(4), numpy.int64(4)) == b"\7" * 4
        for call in (
            lambda: memory.fill(1.5),  # type: ignore[arg-type]
            lambda: memory.fill("7"),  # type: ignore[arg-type]
            lambda: memory.read_bytes(1.0),  # type: ignore[arg-type]
            lambda: memory.read_bytes(0, "4"),  # type: ignore[arg-type]
        ):
            with pytest.raises(TypeError, match="give a whole number"):
                call()
        assert memory.tobytes() == b"\7" * 8 and type(memory.tobytes()) is bytes


# Copies.


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda memory: copy.deepcopy({"frame": [memory]})])
def test_the_copy_module_gets_no_alias(device: Device, how: Any) -> None:
    """A copy would be another memory object on the same payload, and one more thing to close."""
    with device.allocate(4) as memory:
        with pytest.raises(extmem.UnsupportedError, match=r"read\(\) copies its contents"):
            how(memory)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda handle: copy.deepcopy([handle, handle])])
def test_handles_are_duplicated_and_not_copied(device: Device, how: Any) -> None:
    types = vk.ExternalMemoryHandleTypeFlagBits
    with device.allocate(4) as memory:
        for kind in (types.OPAQUE_WIN32, types.OPAQUE_FD) if sys.platform == "linux" else (types.OPAQUE_WIN32,):
            with memory.export_handle(kind) as handle:
                with pytest.raises(extmem.UnsupportedError, match=r"duplicate\(\) makes another handle"):
                    how(handle)
                with pickle.loads(pickle.dumps(handle)) as sent, device.open(sent) as other:
                    assert other.read_bytes() == bytes(4)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda thing: copy.deepcopy({"a": [thing]}), pickle.dumps])
def test_nothing_else_that_is_closed_once_is_copied_or_pickled(device: Device, how: Any) -> None:
    """A copy would be a second device or buffer that releases what the first one holds."""
    with device.allocate(64) as memory, memory.buffer() as buffer:
        for thing in (device, buffer, memory.record):
            with pytest.raises(extmem.UnsupportedError, match="is not copied and not pickled"):
                how(thing)
        memory.fill(3)
        assert memory.read_bytes() == b"\3" * 64


# What is left of closed memory.


COUNTS = ("frozen", "generation", "torn")
"""Properties that are read from the payload, or from a page of it, which closed memory does not have any more."""


def test_closed_memory_can_be_looked_at(device: Device, name: str) -> None:
    """Completion and debuggers read all that `dir` lists."""
    memory = device.allocate((2, 3), "float32", name=name)
    read = {key: getattr(memory, key) for key in dir(memory) if key not in (*COUNTS, "__cuda_array_interface__")}
    before = {key: value for key, value in read.items() if not callable(value)}
    del read, before["__array_interface__"]  # which has a view
    memory.close()
    for count in COUNTS:
        with pytest.raises(extmem.HandleStateError, match="closed"):
            getattr(memory, count)
    after = {key: getattr(memory, key, None) for key in dir(memory) if key not in COUNTS}
    for known in ("name", "size", "allocation_size", "memory_type_index", "read_only", "descriptor", "host_visible"):
        assert after[known] == before[known]
    assert after["closed"] is True and after["device"] is device
    assert not hasattr(memory, "__array_interface__") and not hasattr(memory, "__cuda_array_interface__")
    with pytest.raises(extmem.HandleStateError):
        numpy.asarray(memory)


def test_closed_devices_and_handles_can_be_looked_at(device: Device, name: str) -> None:

    other = extmem.open_device(kind="host")
    memory = other.allocate(4, name=name)
    things: list[Any] = [other, memory.export_handle()]
    if sys.platform == "linux":
        things.append(memory.export_handle(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD))
    buffer = other.create_buffer(vk.BufferCreateInfo(size=64, usage=1))
    array = memory.descriptor
    memory.close()
    buffer.close()
    for thing in things:
        thing.close()
    for thing in (*things, buffer, array):
        assert dict(inspect.getmembers(thing))
