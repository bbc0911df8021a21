"""The array interface, which Pillow and others use."""

from __future__ import annotations

import sys

import numpy
import pytest
from PIL import Image

import extmem
from extmem.api import Device
from extmem.testing import fake_cuda


@pytest.mark.parametrize(
    ("shape", "dtype", "mode"),
    [((2, 3), "uint8", "L"), ((2, 3, 3), "uint8", "RGB"), ((2, 3, 4), "uint8", "RGBA"), ((2, 3), "float32", "F")],
)
def test_pillow_makes_images_of_memory(device: Device, shape: tuple[int, ...], dtype: str, mode: str) -> None:
    data = numpy.arange(numpy.prod(shape), dtype=dtype).reshape(shape)
    with device.allocate(shape, dtype) as memory:
        memory.write(data)
        image = Image.fromarray(memory)
        assert image.mode == mode and image.size == (3, 2)
        assert (numpy.asarray(image) == data).all()
        del image


def test_an_image_of_memory_outlives_it_or_holds_it(device: Device) -> None:
    """Before Python 3.12 Pillow copies; since then an image may keep a view of the memory, which cannot be closed."""
    memory = device.allocate((2, 2), "uint8")
    memory.fill(7)
    image = Image.fromarray(memory)
    if sys.version_info >= (3, 12):
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        assert image.getpixel((1, 1)) == 7
        del image
        memory.close()
    else:
        memory.close()
        assert image.getpixel((1, 1)) == 7


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float16", "complex128"])
def test_the_interface_holds_the_mapping(device: Device, dtype: str) -> None:
    memory = device.allocate((2, 3), dtype)
    interface = memory.__array_interface__
    assert interface["version"] == 3 and interface["shape"] == (2, 3)
    assert interface["typestr"] == numpy.dtype(dtype).str
    assert isinstance(interface["data"], memoryview)

    class Other:
        __array_interface__ = interface

    array = numpy.asarray(Other())
    del interface, Other.__array_interface__
    array.view("uint8")[1, -1] = 1  # bytes: Wine's C library lacks what arithmetic of complex numbers calls
    assert memory.numpy().view("uint8")[1, -1] == 1
    with pytest.raises(extmem.LiveViewError):
        memory.close()
    del array
    memory.close()


def test_read_only_memory_is_read_only_through_the_interface(device: Device, name: str) -> None:
    with device.allocate(4, name=name, access=extmem.Access.READ), extmem.open(name) as memory:
        assert memory.__array_interface__["data"].readonly
        array = numpy.asarray(memory)
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True
        del array


def test_memory_that_is_not_host_visible_has_no_interface() -> None:
    with fake_cuda.installed(fake_cuda.FakeCuda()), extmem.open_device(kind="cuda") as cuda, cuda.allocate(4) as memory:
        assert not memory.host_visible and not hasattr(memory, "__array_interface__")
