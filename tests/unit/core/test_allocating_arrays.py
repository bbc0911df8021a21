"""Layouts of new arrays: order, strides, row pitch, no elements, no axes. Readers get the same layout."""

from __future__ import annotations

from typing import Any

import pytest

import extmem
from extmem.api import Device
from extmem.core.arguments import array_of
from tests import cuda_bed
from tests.vulkan_bed import SHARES_NOTHING

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")

LAYOUTS: dict[str, tuple[Any, str, dict[str, Any], tuple[int, ...], int]] = {
    "row-major": ((3, 4), "float32", {}, (16, 4), 48),
    "C": ((3, 4), "float32", {"order": "C"}, (16, 4), 48),
    "F": ((3, 4), "float32", {"order": "F"}, (4, 12), 48),
    "strides": ((3, 4), "int16", {"strides": (2, 8)}, (2, 8), 30),
    "pitch": ((3, 5, 4), "uint8", {"row_pitch": 32}, (32, 4, 1), 96),
    "axes of one": ((1, 4), "uint8", {"strides": (-7, 1)}, (-7, 1), 4),
    "no axes": ((), "float64", {}, (), 8),
    "empty": ((0, 3), "float32", {}, (12, 4), 1),
    "empty at the end": ((3, 0), "float32", {"order": "F"}, (4, 12), 1),
    "packed": ((3, 5), "int4_packed", {}, (20, 4), 8),
    "packed rows": ((3, 5), "int4_packed", {"row_pitch": 3}, (24, 4), 9),
    "foreign": ((2,), ">f4", {}, (4,), 8),
}
"""Shape, element type, layout; strides and bytes of the payload."""


@pytest.mark.parametrize("what", LAYOUTS)
@pytest.mark.parametrize("kind", ["host", pytest.param("vulkan", marks=SHARES_NOTHING)])
def test_a_layout_travels_to_the_reader(kind: str, what: str, name: str, request: pytest.FixtureRequest) -> None:
    device: Device = request.getfixturevalue("device" if kind == "host" else "vulkan_device")
    shape, dtype, layout, strides, size = LAYOUTS[what]
    with device.allocate(shape, dtype, name=name, **layout) as memory, extmem.open(name) as other:
        assert (memory.shape, memory.strides, memory.size) == (shape, strides, size)
        assert other.descriptor.array == memory.descriptor.array and other.size == size
        assert (other.shape, other.dtype, other.nbytes) == (memory.shape, memory.dtype, memory.nbytes)
        if not dtype.endswith("packed"):
            array = memory.numpy()
            assert array.shape == shape and (0 in shape or 1 in shape or array.strides == strides)
            array[...] = numpy.arange(array.size).reshape(shape)
            assert (other.numpy() == array).all() and other.read().shape == shape
            assert (numpy.asarray(other) == array).all()
            if "row_pitch" not in layout and "strides" not in layout:
                memory.write((array + 1).astype(array.dtype))
                assert (other.read() == array).all() and (0 in shape or array.flat[0] == 1)
            del array


@pytest.mark.parametrize("kind", ["cuda", "vulkan"])
def test_a_layout_on_a_gpu(kind: str) -> None:
    with cuda_bed.both(), extmem.open_device(kind=kind) as gpu:
        for shape, dtype, layout, strides, size in LAYOUTS.values():
            with gpu.allocate(shape, dtype, **layout) as memory:
                assert (memory.shape, memory.strides, memory.size) == (shape, strides, size)
                if all(step >= 0 for step in strides):
                    assert memory.device_array().shape == shape
                assert memory.tobytes() == bytes(size)


@pytest.mark.parametrize(
    ("shape", "layout", "problem"),
    [
        ((2, 3), {"order": "A"}, "order is 'A'"),
        ((2, 3), {"order": "C", "strides": (12, 4)}, "give one of them"),
        ((2, 3), {"row_pitch": 12, "strides": (12, 4)}, "give one of them"),
        ((2, 3), {"strides": (4, 4)}, "overlaps: along one axis, parts of 8 bytes are 4"),
        ((2, 3), {"strides": (0, 4)}, "overlaps"),
        ((2, 3), {"strides": (-12, 4)}, "negative"),
        ((2, 3), {"strides": (12,)}, "1 strides for 2 axes"),
        ((2, 3), {"strides": (1 << 64, 4)}, "out of range"),
        ((2, 3), {"strides": (1 << 62, 4)}, None),
        ((3, 3), {"strides": (1 << 62, 4)}, "more than .* bytes"),
        ((2, 3), {"row_pitch": 11}, "a row of .* takes 12 bytes"),
        ((2, 3), {"row_pitch": 14}, "not a multiple of 4"),
        ((), {"row_pitch": 16}, "no rows"),
        ((-1, 2), {}, "negative extent"),
        ((0, 1 << 62), {}, "more than .* bytes"),
        ((1,) * 65, {}, "65 axes"),
    ],
)
def test_other_layouts_are_refused(shape: tuple[int, ...], layout: dict[str, Any], problem: str | None) -> None:
    if problem is None:
        assert array_of(shape, "float32", **layout).nbytes == (1 << 62) + 12
        return
    with pytest.raises(ValueError, match=problem):
        array_of(shape, "float32", **layout)


def test_the_length_is_that_of_the_first_axis(device: Device) -> None:
    with device.allocate((3, 4)) as memory, device.allocate(()) as one, device.allocate(0) as empty:
        assert len(memory) == 3 and len(empty) == 0
        assert bool(memory) and bool(one) and bool(empty), "memory is not a number"
        with pytest.raises(TypeError, match="has no length"):
            len(one)
    with device.allocate_memory(extmem.vk.MemoryAllocateInfo(4096, 0)) as plain:
        assert (plain.shape, plain.dtype, plain.strides, plain.nbytes, len(plain)) == (
            (4096,),
            "uint8",
            (1,),
            4096,
            4096,
        )


def test_the_element_type_equals_numpys(device: Device) -> None:
    with device.allocate(2, "float32") as memory:
        assert memory.dtype == "float32" and numpy.dtype("float32") == memory.dtype
