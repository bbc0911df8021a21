"""Arrays on payloads: element types, layouts within the payload, NumPy and DLPack without a copy, read-only memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import extmem
from extmem import interop
from extmem.api import Device, DeviceMemory
from extmem.interop.element_types import NUMPY_NAMES
from extmem.sharing.elements import FOREIGN, element_type
from tests.unit.interop.test_writing import COMPLEX

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.fixture
def frame(device: Device) -> Iterator[DeviceMemory]:
    with device.allocate((4, 6), "float32") as memory:
        yield memory


@pytest.fixture
def reading(device: Device, name: str) -> Iterator[DeviceMemory]:
    with device.allocate(4096, name=name, access=extmem.Access.READ), extmem.open(name) as memory:
        assert memory.read_only
        yield memory


# Element types.


def text_of(dtype: object) -> str:
    return interop.element_of(dtype).text


@pytest.mark.parametrize("name", sorted(NUMPY_NAMES))
def test_every_element_type_is_numpys(name: str) -> None:
    assert element_type(name).itemsize == numpy.dtype(name).itemsize
    assert text_of(numpy.dtype(name)) == text_of(numpy.dtype(name).type) == name
    assert text_of(numpy.dtype(name).str) == text_of(name) == name
    assert interop.numpy_dtype(element_type(name)) == numpy.dtype(name)


@pytest.mark.parametrize(
    ("given_as", "name"),
    [(int, "int64"), (float, "float64"), (bool, "bool"), (complex, "complex128"), ("half", "float16")],
)
def test_python_types_and_aliases(given_as: object, name: str) -> None:
    assert text_of(given_as) == name


@pytest.mark.parametrize("bad", ["uint9", "S", "O", "datetime64[xs]", object(), "", "b2", "f", numpy.dtype("O"), "M"])
def test_what_cannot_be_shared(bad: object) -> None:
    with pytest.raises(ValueError, match="float32"):
        text_of(bad)


class Named:
    """An element type of some framework: its text, or its name, is that of another element type."""

    name = "float32"
    __name__ = "float32"

    def __str__(self) -> str:
        return "float"

    __repr__ = __str__


@pytest.mark.parametrize("strange", [Named(), Named, None, 4, ["float32"], type("float32", (), {})])
def test_what_only_looks_like_a_type_is_not_taken_for_one(device: Device, strange: object) -> None:
    with pytest.raises(ValueError, match="not an element type that can be shared"):
        text_of(strange)
    if strange is not None:
        with pytest.raises(ValueError, match="not an element type"):
            device.allocate(4, strange)


def test_pyarrows_types_are_not_taken_by_their_text(device: Device) -> None:
    """`str(pyarrow.float32())` is "float", which is 64 bits to Python."""
    pyarrow = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
    for kind, name in ((pyarrow.float32(), "float32"), (pyarrow.float64(), "float64"), (pyarrow.int64(), "int64")):
        with device.allocate(4, kind) as memory:
            assert memory.dtype == name


def test_names_and_codes_may_be_of_a_subclass(device: Device) -> None:
    name = text_of(numpy.str_("float32"))
    assert name == "float32" and type(name) is str
    assert type(text_of(numpy.str_("<f4"))) is str
    with device.allocate(2, numpy.str_("int16")) as memory, memory.export_handle() as handle:
        with extmem.open(handle) as other:
            assert other.numpy().dtype == numpy.int16


@pytest.mark.parametrize("code", ["<f4", "=f4", "f4", "|u1", "b1", "c16"])
def test_codes_of_native_byte_order(code: str) -> None:
    assert text_of(code) == numpy.dtype(code).name


@pytest.mark.parametrize("code", ["<f5", "f\u0664", "f", "c4", "u", "<", "O8", "f-4", "b8"])
def test_invalid_codes_are_refused(code: str) -> None:
    with pytest.raises(ValueError, match="not an element type"):
        text_of(code)


# Layouts.


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(0, 4096),
    shape=st.lists(st.integers(0, 20), min_size=0, max_size=4),
    dtype=st.sampled_from(sorted(NUMPY_NAMES)),
    offset=st.integers(0, 4096),
    data=st.data(),
)
def test_an_accepted_layout_never_reaches_outside(
    size: int, shape: list[int], dtype: str, offset: int, data: st.DataObject
) -> None:
    strides = data.draw(st.none() | st.lists(st.integers(-256, 256), min_size=len(shape), max_size=len(shape)))
    try:
        layout = interop.layout_for(size, None, dtype=dtype, shape=shape, strides=strides, offset=offset)
    except ValueError:
        return
    item = numpy.dtype(dtype).itemsize
    if all(shape):
        corners = [offset]
        for extent, stride in zip(layout.shape, layout.strides, strict=True):
            corners += [corner + (extent - 1) * stride for corner in corners]
        assert min(corners) >= 0 and max(corners) + item <= size
    if size:
        made = interop.numpy_view(memoryview(bytearray(size)), layout)
        assert made.shape == tuple(shape) and made.dtype.name == dtype


@pytest.mark.parametrize(
    "values",
    [
        {"shape": (25,)},
        {"shape": (5, 6)},
        {"offset": 97},
        {"offset": -1},
        {"shape": (-1,)},
        {"shape": (4,), "strides": (4, 4)},
        {"dtype": "float64", "offset": 4},
        {"shape": (2,), "strides": (-8,)},
    ],
)
def test_a_layout_outside_the_payload_is_refused(frame: DeviceMemory, values: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        frame.numpy(**values)  # type: ignore[arg-type]
    assert frame.numpy().shape == (4, 6)


@pytest.mark.parametrize(
    "values",
    [
        {"shape": (2.7,)},
        {"shape": "23"},
        {"shape": b"23"},
        {"shape": 8.0},
        {"shape": (2, "3")},
        {"shape": (None,)},
        {"strides": (4.9, 4)},
        {"shape": (2,), "strides": ("4",)},
        {"offset": 4.0},
        {"offset": "4"},
        {"offset": None},
    ],
    ids=str,
)
def test_a_layout_with_values_that_are_not_integers_is_refused(frame: DeviceMemory, values: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=f"{list(values)[-1]}.* is "):
        frame.numpy(**values)  # type: ignore[arg-type]


def test_whole_numbers_are_of_any_integer_type(frame: DeviceMemory) -> None:
    assert frame.numpy(shape=8).shape == frame.numpy(shape=numpy.int64(8)).shape == (8,)
    assert frame.numpy(shape=numpy.array([2, 3]), offset=numpy.uint8(4)).shape == (2, 3)
    assert frame.numpy(shape=iter((2, 3))).shape == (2, 3)
    assert frame.numpy("float32", 2, strides=numpy.int32(8)).strides == (8,)
    assert frame.numpy(shape=()).shape == ()


def test_the_described_layout_and_the_callers(frame: DeviceMemory) -> None:
    array = frame.numpy()
    assert array.shape == (4, 6) and array.dtype == numpy.float32 and array.flags.writeable
    array[:] = numpy.arange(24, dtype="float32").reshape(4, 6)
    assert frame.numpy("uint8").shape == (96,)
    assert frame.numpy("float32", (2, 3), offset=4)[0, 0] == 1.0
    assert (frame.numpy("float32", (4,), strides=(24,)) == array[:, 0]).all()
    assert (frame.numpy("float32", (24,), strides=(-4,), offset=92) == array.ravel()[::-1]).all()
    del array


# Zero copy.


def test_arrays_share_the_payload(frame: DeviceMemory) -> None:
    array = frame.numpy()
    array[1, 2] = 42
    assert numpy.asarray(frame)[1, 2] == 42
    assert numpy.from_dlpack(frame)[1, 2] == 42
    with frame.map() as view:
        assert numpy.frombuffer(view, "float32")[8] == 42
        view[32:36] = b"\0\0\0\0"
    assert array[1, 2] == 0
    del array


def test_array_protocol_with_dtype_and_copy(frame: DeviceMemory) -> None:
    array = frame.numpy()
    copied = numpy.array(frame, copy=True)
    array[0, 0] = 7
    assert copied[0, 0] == 0
    assert numpy.asarray(frame, dtype="float64")[0, 0] == 7.0
    assert numpy.asarray(frame, copy=False)[0, 0] == 7
    with pytest.raises(ValueError, match="without a copy"):
        frame.__array__("float64", copy=False)
    del array


def test_dlpack(frame: DeviceMemory) -> None:
    assert frame.__dlpack_device__() == (1, 0)
    assert numpy.from_dlpack(frame).shape == (4, 6)
    assert frame.__dlpack__(dl_device=(1, 0)) is not None
    with pytest.raises(BufferError, match="streams"):
        frame.__dlpack__(stream=1)
    with pytest.raises(BufferError, match=r"\(2, 0\)"):
        frame.__dlpack__(dl_device=(2, 0))
    copied = numpy.from_dlpack(frame, copy=True)
    frame.numpy()[0, 0] = 5
    assert copied[0, 0] == 0


def test_read_only_is_read_only_everywhere(reading: DeviceMemory) -> None:
    assert reading.map().readonly
    array = reading.numpy()
    assert not array.flags.writeable
    for looking in (array, array[1:], numpy.asarray(reading), numpy.from_dlpack(reading)):
        with pytest.raises(ValueError, match="WRITEABLE"):
            looking.flags.writeable = True  # a write would be a segmentation fault
    assert not numpy.asarray(reading).flags.writeable
    assert not numpy.from_dlpack(reading).flags.writeable
    with pytest.raises(BufferError):
        reading.__dlpack__()  # a consumer without a read-only flag must not get it
    with pytest.raises(TypeError):
        reading.map()[0] = 1
    del array


@pytest.mark.skipif(sys.version_info < (3, 12), reason="__buffer__ needs Python 3.12")
def test_the_buffer_protocol(frame: DeviceMemory, reading: DeviceMemory) -> None:
    view = memoryview(frame)  # type: ignore[arg-type]  # checked with Python 3.11 in mind
    assert view.nbytes == 96 and not view.readonly and (view.shape, view.format) == ((4, 6), "f")
    view.release()
    assert memoryview(reading).readonly  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", sorted(NUMPY_NAMES))
def test_a_typed_view_is_the_described_array(dtype: str) -> None:
    item = numpy.dtype(dtype).itemsize
    layout = interop.layout_for(12 * item, None, dtype=dtype, shape=(3, 4))
    wanted = numpy.arange(12).astype(dtype).reshape(3, 4)
    view = interop.typed_view(memoryview(bytearray(wanted.tobytes())), layout)
    assert view.shape == (3, 4) and not view.readonly
    assert (numpy.asarray(view) == wanted).all() and numpy.asarray(view).dtype == wanted.dtype
    assert interop.typed_view(memoryview(wanted.tobytes()), layout).readonly


def test_a_typed_view_of_strided_or_undescribed_bytes() -> None:
    every_other = interop.layout_for(24, None, dtype="uint8", shape=(4,), strides=(6,))
    assert interop.typed_view(memoryview(bytes(range(24))), every_other).tolist() == [0, 6, 12, 18]
    plain = memoryview(b"bytes")
    assert interop.typed_view(plain, None) is plain


def test_a_typed_view_that_needs_numpy_stays_bytes_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = interop.layout_for(16, None, dtype="complex64", shape=(2,))
    plain = memoryview(bytes(16))
    assert interop.typed_view(plain, layout).shape == (2,)
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert interop.typed_view(plain, layout) is plain


# Closing under live views.


@pytest.mark.parametrize(
    "look",
    [
        lambda memory: memory.map(),
        lambda memory: memory.map()[10:20],
        lambda memory: memory.numpy(),
        lambda memory: memory.numpy()[1:, ::2],
        lambda memory: numpy.asarray(memory),
        lambda memory: numpy.from_dlpack(memory),
    ],
    ids=["memoryview", "slice", "numpy", "numpy slice", "asarray", "dlpack"],
)
def test_closing_under_a_live_view_is_refused_and_loses_nothing(device: Device, look: object) -> None:
    memory = device.allocate((8, 8), "uint8", name=None)
    view = look(memory)  # type: ignore[operator]
    with pytest.raises(extmem.LiveViewError, match="is still alive"):
        memory.close()
    assert not memory.closed
    memory.numpy()[:] = 1
    with memory.export_handle() as handle, extmem.open(handle) as other:
        assert other.numpy()[7, 7] == 1
    del view
    memory.close()
    assert memory.closed


def test_a_released_memoryview_does_not_prevent_closing(device: Device) -> None:
    memory = device.allocate(16)
    with memory.map() as view:
        with pytest.raises(extmem.LiveViewError):
            memory.close()
        assert view.nbytes == 16
    memory.close()


def test_without_numpy_the_error_has_the_remedy(frame: DeviceMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(extmem.UnsupportedError, match=r"extmem\[numpy\]"):
        frame.numpy()
    assert frame.map().nbytes == 96


@pytest.mark.parametrize(
    ("code", "native"), [("f4", "float32"), ("i2", "int16"), pytest.param("c8", "complex64", marks=COMPLEX)]
)
def test_a_code_in_the_other_byte_order_is_its_numpy_type(device: Device, code: str, native: str) -> None:
    for element in (FOREIGN + code, numpy.dtype(FOREIGN + code), FOREIGN + native):
        assert text_of(element) == FOREIGN + native
    assert interop.numpy_dtype(element_type(FOREIGN + native)) == numpy.dtype(FOREIGN + code)
    assert text_of(">u1") == text_of("<u1") == "uint8"  # one byte has no order
    with device.allocate(2, FOREIGN + code) as memory:
        memory.write(numpy.array([1, 2], FOREIGN + code))
        assert memory.numpy().tolist() == [1, 2] and memory.tobytes() == numpy.array([1, 2], FOREIGN + code).tobytes()


@pytest.mark.parametrize(
    "element", ["f", "d", ">", "", ">f3", numpy.generic, numpy.floating, numpy.integer, numpy.number]
)
def test_what_names_no_element_type_is_refused_with_what_is_accepted(element: object) -> None:
    with pytest.raises(ValueError, match="is not an element type that can be shared; use one of bool, int1") as caught:
        text_of(element)
    assert "f4', 'f4'), its NumPy type, or Python's bool" in str(caught.value)
    assert text_of("f4") == text_of(numpy.float32) == "float32" and text_of(float) == "float64"
