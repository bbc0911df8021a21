"""Arrays on a GPU's memory: their attributes, what is refused without a call of the driver, what keeps them alive."""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from types import SimpleNamespace
from typing import Any

import numpy
import pytest

import extmem
from extmem.api import Device
from extmem.interop import ArrayLayout, DeviceArray, capsules, check_device_layout
from extmem.testing import fake_cuda, leaks
from tests import cuda_bed


def seen(array: Any) -> Any:
    """The array as NumPy reads it: the fake's device memory is the host's, at the same address."""
    interface = array.__cuda_array_interface__

    class Interface:
        __array_interface__ = {key: interface[key] for key in ("shape", "typestr", "data", "strides")} | {"version": 3}

    return numpy.asarray(Interface())


@pytest.fixture
def fake() -> Any:
    with leaks.no_leaks(), cuda_bed.both() as (made, _):
        yield made


@pytest.fixture(params=["cuda", "vulkan"])
def gpu(request: pytest.FixtureRequest, fake: fake_cuda.FakeCuda) -> Any:
    with extmem.open_device(kind=request.param) as opened:
        yield opened


# Their attributes.


def test_an_array_is_over_the_memory_itself(gpu: Device) -> None:
    with gpu.allocate((3, 4), "float32") as memory:
        array = memory.device_array()
        assert (array.shape, array.dtype, array.read_only) == ((3, 4), "float32", False)
        seen(array)[:] = numpy.arange(12).reshape(3, 4)
        assert (memory.read() == numpy.arange(12).reshape(3, 4)).all()
        memory.fill(0)
        assert not seen(array).any()
        del array


def test_the_interface_has_version_stream_and_right(gpu: Device, name: str) -> None:
    with gpu.allocate((3, 4), "float32", name=name, access=extmem.Access.READ) as memory:
        interface = memory.__cuda_array_interface__
        assert (interface["version"], interface["stream"], interface["strides"], interface["typestr"]) == (
            3,
            None,
            None,
            "<f4",
        )
        assert interface["shape"] == (3, 4) and interface["data"][1] is False
        with gpu.open(name) as other:
            assert other.__cuda_array_interface__["data"][1] is True


@pytest.mark.parametrize(
    ("dtype", "typestr"),
    [("bool", "|b1"), ("uint8", "|u1"), ("int8", "|i1"), ("float16", "<f2"), ("uint64", "<u8"), ("complex64", "<c8")],
)
def test_every_type_has_its_code(dtype: str, typestr: str) -> None:
    array = DeviceArray(64, ArrayLayout((2,), dtype, (numpy.dtype(dtype).itemsize,)), 0, read_only=False, keep=None)
    assert array.__cuda_array_interface__["typestr"] == typestr == numpy.dtype(dtype).str


def test_shape_type_strides_and_offset_may_be_others(gpu: Device) -> None:
    with gpu.allocate((8, 8), "uint8") as memory:
        memory.write(numpy.arange(64, dtype="uint8"))
        column = memory.device_array("uint8", (8,), strides=(8,), offset=3)
        assert seen(column).tolist() == list(range(3, 64, 8))
        turned = memory.device_array(strides=(1, 8))
        assert (seen(turned) == numpy.arange(64).reshape(8, 8).T).all()
        words = memory.device_array("uint32", offset=60)
        assert seen(words).tolist() == [int.from_bytes(bytes(range(60, 64)), "little")]
        del column, turned, words


def test_memory_of_the_host_device_is_on_no_gpu(fake: fake_cuda.FakeCuda, name: str) -> None:
    with extmem.open_device(kind="host") as host, host.allocate((4,), name=name) as memory:
        with pytest.raises(extmem.UnsupportedError, match="open it on the CUDA device"):
            memory.device_array()
        assert not hasattr(memory, "__cuda_array_interface__")
        assert memory.__dlpack_device__() == (1, 0)
        with extmem.open_device(kind="cuda") as cuda, cuda.open(name) as other:
            assert other.__dlpack_device__() == (3, 0)
            assert seen(other.device_array()).shape == (4,)


# What is refused, before the driver is called.

REFUSED = {
    "negative strides": ({"strides": (-8, 1), "offset": 56}, "negative"),
    "overlapping strides": ({"strides": (4, 1)}, "overlaps"),
    "strides of zero": ({"strides": (0, 1)}, "overlaps"),
    "a larger shape": ({"shape": (8, 9)}, "reaches bytes"),
    "a type that does not divide": ({"dtype": "float64", "offset": 4}, "not a whole number"),
    "an offset between elements": ({"dtype": "uint32", "shape": (2,), "offset": 2}, "offset 2 is not a multiple"),
    "strides between elements": ({"dtype": "uint32", "shape": (2,), "strides": (6,)}, "stride 6 is not a multiple"),
    "an unknown type": ({"dtype": "bfloat17"}, "not an element type"),
    "strides for other axes": ({"shape": (8,), "strides": (8, 1)}, "2 strides for 1 axes"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_layouts_that_cannot_be_used_safely_are_refused(what: str, gpu: Device, fake: fake_cuda.FakeCuda) -> None:
    asked, text = REFUSED[what]
    with gpu.allocate((8, 8), "uint8") as memory:
        memory.device_array()  # so that it is imported
        calls = len(fake.calls)
        for make in (memory.device_array, memory.torch, memory.cupy):
            with pytest.raises(ValueError, match=text):
                make(**asked)
        assert len(fake.calls) == calls


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((2, 3), (12, 4)), ((2, 3), (4, 8)), ((1, 3), (0, 4)), ((2, 1, 3), (16, 0, 4)), ((0, 3), (4, 4))],
)
def test_strides_that_keep_elements_apart_are_taken(shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
    check_device_layout(ArrayLayout(shape, "float32", strides))


def test_memory_that_is_not_for_export_is_refused_with_the_remedy(fake: fake_cuda.FakeCuda) -> None:
    with extmem.open_device(kind="vulkan") as vulkan:
        memory = vulkan.allocate_memory(extmem.vk.MemoryAllocateInfo(64, 0))
        with memory, pytest.raises(extmem.UnsupportedError, match="not allocated for export"):
            memory.device_array()


# Their lifetime.


def test_memory_is_not_closed_under_an_array(gpu: Device) -> None:
    memory = gpu.allocate((4,))
    array = memory.device_array()
    with pytest.raises(extmem.LiveViewError):
        memory.close()
    assert not memory.closed
    del array
    memory.close()
    for look in (memory.device_array, memory.torch, memory.cupy, memory.jax, memory.__dlpack__, memory.access):
        with pytest.raises(extmem.HandleStateError, match="is closed"), contextlib.ExitStack() as stack:
            made: Any = look()
            stack.enter_context(made)


def test_an_array_outlives_memory_that_is_lost(gpu: Device) -> None:
    memory = gpu.allocate((4,))
    memory.fill(7)
    array = memory.device_array()
    with pytest.raises(RuntimeError), memory:
        raise RuntimeError  # the memory is released with its last view
    del memory
    gc.collect()
    assert seen(array).tolist() == [7] * 4
    assert gpu.live_allocations == 1
    del array
    gc.collect()
    assert gpu.live_allocations == 0


def test_vulkan_memory_is_imported_by_cuda_once(fake: fake_cuda.FakeCuda) -> None:
    with extmem.open_device(kind="vulkan") as vulkan, vulkan.allocate((4,)) as memory:
        assert not fake.imports
        for _ in range(3):
            memory.device_array()
        assert len(fake.imports) == 1
    assert not fake.alive()["external memories"]


def test_a_second_array_needs_no_call_of_the_driver(gpu: Device, fake: fake_cuda.FakeCuda, name: str) -> None:
    with gpu.allocate((4,), name=name) as memory, gpu.open(name) as other:
        first = other.device_array()
        other.device_array(shape=(2,))
        calls = len(fake.calls)
        again = other.device_array()
        assert len(fake.calls) == calls
        assert (again.pointer, again.layout, again.read_only) == (first.pointer, first.layout, first.read_only)
        assert other.device_array(shape=(2,)).shape == (2,) and other.device_array().shape == (4,)
        del first
        with pytest.raises(extmem.LiveViewError):
            other.close()
        del again
        assert memory.device_array().shape == (4,)


def test_a_pattern_keeps_nothing_and_what_is_made_of_it_does() -> None:
    class Kept:
        pass

    kept = Kept()
    gone = weakref.ref(kept)
    pattern = DeviceArray(64, ArrayLayout((2,), "uint8", (1,)), 0, read_only=True, keep=None)
    made = pattern.kept_by(kept).as_writable()
    del kept
    assert (made.pointer, made.read_only, pattern.read_only) == (64, False, True) and gone() is not None
    del made
    assert gone() is None


# DLPack.


def test_unsupported_streams_devices_versions_and_copies_are_refused(gpu: Device, name: str) -> None:
    with gpu.allocate((4,), name=name, access=extmem.Access.READ) as memory:
        array = memory.device_array()
        assert array.__dlpack_device__() == memory.__dlpack_device__() == (2, 0)
        for asked in ({"stream": 0}, {"stream": -2}, {"stream": "1"}, {"dl_device": (2, 1)}, {"copy": True}):
            with pytest.raises(BufferError):
                array.__dlpack__(**asked)  # type: ignore[arg-type]
        del array
        with gpu.open(name) as other, pytest.raises(BufferError, match="read-only"):
            other.__dlpack__(max_version=(0, 8))


def test_a_capsule_describes_the_array_and_keeps_the_memory(gpu: Device, name: str) -> None:
    memory = gpu.allocate((3, 4), "float32", order="F", name=name)
    array = memory.device_array()
    for asked, found_name in ((None, b"dltensor"), ((1, 0), b"dltensor_versioned")):
        capsule = array.capsule(asked)
        tensor, versioned = capsules._contents(capsule)
        assert capsules._name_of(capsule) == found_name and (versioned is None) == (asked is None)
        assert (tensor.device_type, tensor.device_id) == (2, 0)
        assert tensor.data + tensor.byte_offset == array.pointer
        assert ([*tensor.shape[:2]], [*tensor.strides[:2]]) == ([3, 4], [1, 3])
    del array
    with pytest.raises(extmem.LiveViewError):
        memory.close()
    del capsule, tensor, versioned
    with gpu.open(name, access=extmem.Access.READ) as other:
        for array, flag in ((other.device_array(), 1), (other.device_array().as_writable(), 0)):
            capsule = array.capsule((1, 0))
            versioned = capsules._contents(capsule)[1]
            assert versioned is not None and versioned.flags & 1 == flag
        del array, capsule, versioned
    memory.close()


# Frameworks that are not installed.


def test_without_numpy_the_interface_is_left(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with gpu.allocate((4,)) as memory:
        with pytest.raises(extmem.UnsupportedError, match=r"pip install 'extmem\[numpy\]'"):
            memory.__dlpack__()
        assert memory.__cuda_array_interface__["shape"] == (4,)


@pytest.mark.parametrize(
    ("built_for", "text"),
    [
        (None, "without CUDA; install a build with CUDA"),
        ("99.0", "for CUDA 99.0 and finds no GPU.*driver may be too old"),
    ],
)
def test_a_framework_for_another_cuda_is_refused_with_the_reason(
    built_for: str | None, text: str, gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old")  # PyTorch's text

    found = SimpleNamespace(is_initialized=lambda: False, is_available=lambda: False, init=start)
    stands_in = SimpleNamespace(cuda=found, version=SimpleNamespace(cuda=built_for), __version__="2")
    stands_in.dtype, stands_in.uint8 = str, "torch.uint8"
    monkeypatch.setitem(sys.modules, "torch", stands_in)
    with gpu.allocate((4,)) as memory:
        with pytest.raises(extmem.UnsupportedError, match=f"on CUDA device 0: .*{text}") as caught:
            memory.torch()
        del caught  # its frames hold the array
        gc.collect()


@pytest.mark.parametrize(("method", "module"), [("torch", "torch"), ("cupy", "cupy"), ("jax", "jax")])
def test_a_missing_framework_is_named_with_how_to_install_it(
    method: str, module: str, gpu: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with gpu.allocate((4,)) as memory, pytest.raises(extmem.UnsupportedError, match="is not installed"):
        getattr(memory, method)()
