"""`write`: data arrives with the values that it had, or not at all."""

from __future__ import annotations

import array
import ctypes
import mmap
import sys
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from extmem import UnsupportedError
from extmem.api import Device, DeviceMemory
from extmem.interop import octets_to_write
from extmem.sharing.elements import FOREIGN

np = pytest.importorskip("numpy", reason="NumPy is not installed")

COMPLEX = pytest.mark.linux_only("computing with complex numbers ends the process under Wine, whose C library lacks it")


@pytest.fixture
def floats(device: Device) -> Iterator[DeviceMemory]:
    with device.allocate((4, 4), "float32") as memory:
        memory.numpy()[:] = -1
        yield memory


@pytest.fixture
def octets(device: Device) -> Iterator[DeviceMemory]:
    with device.allocate(64) as memory:
        yield memory


def untouched(memory: DeviceMemory) -> bool:
    return bool((memory.read() == -1).all())


NUMBERS = np.arange(16, dtype="float32").reshape(4, 4)


# The payload's own type.


@pytest.mark.parametrize(
    "data",
    [
        NUMBERS,
        NUMBERS.copy(order="F"),
        np.repeat(NUMBERS, 2, axis=1)[:, ::2],
        memoryview(NUMBERS),
        NUMBERS.tolist(),
        tuple(map(tuple, NUMBERS.tolist())),
        NUMBERS.astype(int).tolist(),
    ],
    ids=["array", "columns first", "strided", "memoryview", "lists", "tuples", "integers"],
)
def test_an_array_of_the_payloads_type_and_shape_is_written(floats: DeviceMemory, data: object) -> None:
    floats.write(data)
    assert (floats.read() == NUMBERS).all()


def test_ctypes_and_the_standard_librarys_arrays_are_arrays_too(device: Device) -> None:
    with device.allocate(4, "float32") as memory:
        memory.write((ctypes.c_float * 4)(1, 2, 3, 4))
        assert memory.read().tolist() == [1, 2, 3, 4]
        memory.write(array.array("f", [5, 6, 7, 8]))
        assert memory.read().tolist() == [5, 6, 7, 8]
        with pytest.raises(TypeError, match="data is float64 and the payload holds float32"):
            memory.write(array.array("d", [5, 6, 7, 8]))
        with pytest.raises(TypeError, match="data is int32"):
            memory.write((ctypes.c_int32 * 4)(1, 2, 3, 4))
        assert memory.read().tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize("name", ["bool", "int8", "uint8", "int16", "uint64", "float16", "complex64", "complex128"])
def test_every_element_type_is_written_unchanged(device: Device, name: str) -> None:
    data = np.arange(6).reshape(2, 3).astype(name)
    with device.allocate((2, 3), name) as memory:
        memory.write(data)
        assert (memory.read() == data).all()


def test_long_integers_match_the_type_of_their_width(device: Device) -> None:
    """NumPy has two types of 64 bits on Linux, and two of 32 on Windows."""
    with device.allocate(3, "int64") as memory:
        memory.write(np.array([1, 2, 3], np.longlong))
        assert memory.read().tolist() == [1, 2, 3]
        memory.write(np.array([4, 5, 6], "q"))
        assert memory.read().tolist() == [4, 5, 6]


# Another type, another shape.


@pytest.mark.parametrize(
    ("data", "element"),
    [
        (np.ones((4, 4)), "float64"),
        (np.ones((4, 4), "int32"), "int32"),
        (np.ones((2, 4)), "float64"),
        (np.ones((4, 4), "uint8"), "uint8"),
        (np.ones((4, 4), "?"), "bool"),
        (memoryview(np.ones((4, 4))), "float64"),
        (np.zeros((4, 4), "complex64"), "complex64"),
        (np.float64(3), "float64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_type_is_refused_with_the_remedy(floats: DeviceMemory, data: object, element: str) -> None:
    with pytest.raises(TypeError, match=f"data is {element} and the payload holds float32") as caught:
        floats.write(data)
    assert "cast=True" in str(caught.value) and "tobytes()" in str(caught.value)
    assert untouched(floats)


@pytest.mark.parametrize("shape", [(2, 4), (16,), (4,), (1, 4, 4), (4, 3), (5, 4), (), (0, 4)])
def test_another_shape_is_refused_with_the_remedy(floats: DeviceMemory, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"and the payload \(4, 4\); reshape it, or pass offset= to write a part"):
        floats.write(np.ones(shape, "float32"))
    assert untouched(floats)


def test_a_part_is_written_at_its_offset(floats: DeviceMemory) -> None:
    floats.write(np.full((2, 4), 7, "float32"), offset=32)
    assert floats.read().tolist() == [[-1] * 4] * 2 + [[7] * 4] * 2
    floats.write(np.full((4,), 8, "float32"), offset=16)
    floats.write(np.float32(9), offset=60)
    assert floats.read().tolist() == [[-1] * 4, [8] * 4, [7] * 4, [7, 7, 7, 9]]
    floats.write([1.5, 2.5], offset=4)
    floats.write(NUMBERS, offset=np.int64(0))
    assert (floats.read() == NUMBERS).all()


@pytest.mark.parametrize(
    ("data", "offset", "text"),
    [
        (np.ones((4, 4), "float32"), 4, "reach outside"),
        (np.ones(4, "float32"), 52, "reach outside"),
        (np.ones(1, "float32"), -4, "reach outside"),
        (np.ones(1, "float32"), 2, "inside an element: float32 has 4 bytes"),
        (np.ones((2, 2), "float32"), 0, r"not a part of the payload's \(4, 4\)"),
        (np.ones((1, 4, 4), "float32"), 0, "not a part"),
        (b"12345", 60, "reach outside"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(floats: DeviceMemory, data: object, offset: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        floats.write(data, offset=offset)
    assert untouched(floats)


@pytest.mark.parametrize("offset", [1.0, "4", None.__class__, [4]])
def test_an_offset_is_a_whole_number(floats: DeviceMemory, offset: Any) -> None:
    with pytest.raises(TypeError, match="offset is"):
        floats.write(b"x", offset=offset)
    assert untouched(floats)


# Bytes are bytes.


@pytest.mark.parametrize(
    "make",
    [
        lambda: b"\1\2\3\4\5",
        lambda: bytearray(b"\1\2\3\4\5"),
        lambda: memoryview(b"\1\2\3\4\5"),
        lambda: memoryview(b"\1.\2.\3.\4.\5")[::2],
        lambda: array.array("B", [1, 2, 3, 4, 5]),
        lambda: (ctypes.c_ubyte * 5)(1, 2, 3, 4, 5),
        lambda: ctypes.create_string_buffer(b"\1\2\3\4\5", 5),
        lambda: np.array([1, 2, 3, 4, 5], "uint8"),
        lambda: np.arange(1, 11, dtype="uint8").reshape(5, 2)[:, 0] - np.arange(5, dtype="uint8"),
        lambda: np.bytes_(b"\1\2\3\4\5"),
    ],
)
def test_bytes_go_anywhere_as_they_are(floats: DeviceMemory, make: Any) -> None:
    floats.write(make(), offset=3)
    assert floats.read_bytes(3, 5) == bytes([1, 2, 3, 4, 5])
    floats.write(make())
    assert floats.read_bytes(0, 5) == bytes([1, 2, 3, 4, 5])


def test_a_mapped_file_is_bytes(octets: DeviceMemory) -> None:
    with mmap.mmap(-1, 4096) as file:
        file[:4] = b"mmap"
        with memoryview(file) as view:
            octets.write(view[:64])
        with pytest.raises(ValueError, match="4096 bytes from offset 0 reach outside"):
            octets.write(file)
    assert octets.read_bytes(0, 4) == b"mmap"


def test_empty_data_changes_nothing(floats: DeviceMemory) -> None:
    floats.write(b"")
    floats.write(np.empty(0, "uint8"), offset=7)
    assert untouched(floats)


# Casts.


@pytest.mark.parametrize("given_as", ["float64", ">f4", "int64", "uint8", "bool", "float16", ">i2"])
def test_a_cast_converts_the_values(floats: DeviceMemory, given_as: str) -> None:
    data = (NUMBERS % 2).astype(given_as)
    floats.write(data, cast=True)
    assert (floats.read() == NUMBERS % 2).all()
    floats.write(data[1:2], offset=16, cast=True)
    assert (floats.read() == NUMBERS % 2).all()


@pytest.mark.parametrize(
    ("target", "data"),
    [
        ("int32", np.ones(4)),
        ("uint8", np.ones(4, "int64")),
        ("float32", np.zeros(4, "complex64")),
        ("bool", np.ones(4, "int8")),
        ("int64", np.array(["2020"] * 4, "M8[s]")),
        ("int64", np.array([1] * 4, "m8[s]")),
        ("uint8", np.array(list("abcd"), "S1")),
    ],
)
def test_a_cast_of_another_kind_is_refused(device: Device, target: str, data: Any) -> None:
    with device.allocate(4, target) as memory, pytest.raises(TypeError, match="not of the same kind"):
        memory.write(data, cast=True)


def test_a_cast_needs_the_same_shape(floats: DeviceMemory) -> None:
    with pytest.raises(ValueError, match="reshape it"):
        floats.write(np.ones((2, 8)), cast=True)
    assert untouched(floats)


# Byte orders.


@pytest.mark.parametrize("data", [np.array([1, 2, 3, 4], ">f4"), memoryview(np.array([1, 2, 3, 4], ">f4"))])
def test_a_foreign_byte_order_is_refused_or_converted(device: Device, data: Any) -> None:
    with device.allocate(4, "float32") as memory:
        with pytest.raises(TypeError, match="byte order is not this machine's; pass cast=True"):
            memory.write(data)
        assert memory.read().tolist() == [0] * 4
        memory.write(data, cast=True)
        assert memory.read().tolist() == [1, 2, 3, 4]


def test_one_byte_has_no_order(device: Device) -> None:
    with device.allocate(2, "int8") as memory:
        memory.write(np.array([1, 2], ">i1"))
        assert memory.read().tolist() == [1, 2]


@pytest.mark.parametrize("code", ["f4", "i8", "u2", pytest.param("c8", marks=COMPLEX)])
def test_memory_of_a_foreign_byte_order_is_converted_only_if_requested(device: Device, code: str) -> None:
    native, foreign = np.dtype(code), np.dtype(code).newbyteorder()
    with device.allocate(2, foreign) as memory:
        assert memory.dtype == FOREIGN + native.name
        memory.write(np.array([1, 2], foreign))
        assert memory.read().dtype == foreign and memory.read().tolist() == [1, 2]
        assert memory.numpy(native)[0] != 1
        with pytest.raises(TypeError, match="byte order is not that of the payload"):
            memory.write(np.array([3, 4], native))
        assert memory.read().tolist() == [1, 2]
        memory.write(np.array([3, 4], native), cast=True)
        assert memory.tobytes() == np.array([3, 4], foreign).tobytes()
        memory.write([5, 6])
        assert memory.read().tolist() == [5, 6]


# Objects.


@pytest.mark.parametrize(
    "data",
    [
        np.array(["a", "b"], dtype=object),
        np.array(["a", "b", "c", "d"], dtype=object)[::2],
        np.rec.array([(1, "x")], dtype=[("a", "i8"), ("s", object)]),
        np.array([(1, "x")], dtype=[("a", "i8"), ("s", object)]),
        [object()],
        [None, 1],
        {"a": 1},
        (ctypes.py_object * 2)("a", "b"),
    ],
    ids=["objects", "strided", "records", "structured", "list", "None", "dict", "ctypes"],
)
@pytest.mark.parametrize("cast", [False, True])
def test_addresses_of_this_process_are_not_written(octets: DeviceMemory, data: object, cast: bool) -> None:
    with pytest.raises(TypeError):
        octets.write(data, cast=cast)
    assert not any(octets.read_bytes())


def test_objects_are_refused_where_nothing_is_described_too() -> None:
    with pytest.raises(TypeError, match="addresses in this process"):
        octets_to_write(np.array([object()]), None, offset=None, cast=False)


# Elements without a buffer format.


@pytest.mark.parametrize(
    "data", [np.array(["2020", "2021", "2022"], "M8[s]"), np.array([1, 2, 3], "m8[ms]")], ids=["dates", "durations"]
)
def test_dates_are_refused_and_their_numbers_taken(device: Device, data: Any) -> None:
    with device.allocate(3, "int64") as memory:
        with pytest.raises(TypeError, match=f"data is {data.dtype.name.replace('[', '.')}"):
            memory.write(data)
        with pytest.raises(TypeError, match="view"):
            memory.write(data, cast=True)
        memory.write(data.view("int64"))
        assert (memory.read().view(data.dtype) == data).all()
    octets = octets_to_write(data, None, offset=None, cast=False)
    assert octets == data.tobytes(), "where nothing is described"


# Python's own numbers.


@pytest.mark.parametrize(
    ("target", "data", "found"),
    [
        ("float32", [1.0, 2.5], [1, 2.5]),
        ("float64", [1, 2], [1, 2]),
        ("uint8", [0, 255], [0, 255]),
        ("int8", [-128, True], [-128, 1]),
        ("bool", [True, False], [True, False]),
        pytest.param("complex64", [1, 2.5j], [1, 2.5j], marks=COMPLEX),
        ("float32", range(2), [0, 1]),
        ("float32", [np.float64(1.5), 2], [1.5, 2]),
        ("float32", [float("inf"), float("-inf")], [float("inf"), float("-inf")]),
        ("uint64", [2**64 - 1, 0], [2**64 - 1, 0]),
        ("int64", [2**63 - 1, -(2**63)], [2**63 - 1, -(2**63)]),
        ("float64", [2**70, 1], [2.0**70, 1]),
    ],
)
def test_numbers_take_the_payloads_type(device: Device, target: str, data: object, found: list[object]) -> None:
    with device.allocate(2, target) as memory:
        memory.write(data)
        assert memory.read().tolist() == found


@pytest.mark.parametrize(
    ("target", "data", "kind", "text"),
    [
        ("int32", [1.0, 2.0], TypeError, "float64 is not int32"),
        ("uint8", [1, 256], ValueError, "256 does not fit uint8"),
        ("uint8", [1, -1], ValueError, "-1 does not fit uint8"),
        ("int8", [np.int64(1), np.int64(200)], ValueError, "200 does not fit int8"),
        ("float32", [1, 1e300], ValueError, r"1e\+300 does not fit float32"),
        ("float16", [1, 70000], ValueError, "70000 does not fit float16"),
        pytest.param("float32", [1, 1j], TypeError, "complex128 is not float32", marks=COMPLEX),
        ("bool", [1, 0], TypeError, "int64 is not bool"),
        ("float32", ["1", "2"], TypeError, "is not float32"),
        ("float32", "12", TypeError, "a str"),
        ("float32", [[1], [2, 3]], ValueError, "inhomogeneous"),
        ("int64", [2**64, 0], ValueError, "do not all fit int64"),
        ("uint64", [-1, 2**63], ValueError, "do not all fit uint64"),
        ("float32", [1, 2, 3], ValueError, "shape"),
        ("uint8", [2**70, 0], ValueError, "do not all fit uint8"),
        ("float32", [2**200, 0], ValueError, "do not all fit float32"),
        ("float64", [-(10**400), 0], ValueError, "do not all fit float64"),
        pytest.param("complex64", [0, 2**200], ValueError, "do not all fit complex64", marks=COMPLEX),
        ("float32", 7, ValueError, r"shape \(\)"),
        ("float32", None, TypeError, "NoneType"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(
    device: Device, target: str, data: object, kind: type[Exception], text: str
) -> None:
    with device.allocate(2, target) as memory:
        with pytest.raises(kind, match=text):
            memory.write(data)
        assert not any(memory.read_bytes())


def test_one_number_is_written_at_its_offset(device: Device) -> None:
    with device.allocate(3, "int16") as memory:
        memory.write(7, offset=2)
        assert memory.read().tolist() == [0, 7, 0]
        with pytest.raises(ValueError, match="70000 does not fit int16"):
            memory.write(70000, offset=2)


def test_what_has_no_type_needs_a_payload_that_has_one() -> None:
    with pytest.raises(TypeError, match="has no element type, and this payload describes no array"):
        octets_to_write([1.0, 2.0], None, offset=None, cast=False)
    assert octets_to_write(np.array([1.0]), None, offset=None, cast=False) == np.array([1.0]).tobytes()
    with pytest.raises(TypeError, match="byte order"):
        octets_to_write(np.array([1.0], ">f8"), None, offset=None, cast=False)
    swapped = octets_to_write(np.array([1.0], ">f8"), None, offset=None, cast=True)
    assert swapped == np.array([1.0], "=f8").tobytes()
    assert octets_to_write(np.array([("a", 1)], "S1,i4"), None, offset=None, cast=False).nbytes == 5


def test_elements_out_of_order_are_not_overwritten_in_a_row() -> None:
    class Columns:
        shape, dtype, strides = (2, 2), "float32", (4, 8)

    data = np.array([[1, 2], [3, 4]], "float32")
    assert octets_to_write(data, Columns, offset=None, cast=False) == data.T.tobytes()
    with pytest.raises(ValueError, match="row-major"):
        octets_to_write(data[0], Columns, offset=0, cast=False)
    assert octets_to_write(b"bytes", Columns, offset=None, cast=False) == b"bytes"


def test_gaps_between_elements_are_not_overwritten() -> None:
    class Pitched:
        shape, dtype, strides = (2, 2), "float32", (16, 4)

    with pytest.raises(ValueError, match="gaps"):
        octets_to_write(np.ones((2, 2), "float32"), Pitched, offset=None, cast=False)
    assert octets_to_write(b"bytes", Pitched, offset=None, cast=False) == b"bytes"


# Without NumPy.


def test_without_numpy_bytes_and_plain_arrays_are_written(
    floats: DeviceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    floats.write(b"\0" * 64)
    floats.write(array.array("f", [1, 2]), offset=0)
    assert floats.read_bytes(0, 8) == array.array("f", [1, 2]).tobytes()
    with pytest.raises(TypeError, match="data is float64"):
        floats.write(array.array("d", [1, 2]), offset=0)
    for values, cast in (([[1, 2, 3]], False), (3.5, False), (array.array("d", [1, 2]), True)):
        with pytest.raises(UnsupportedError, match=r"write\(\) of values that are not bytes need it"):
            floats.write(values, offset=0, cast=cast)
    assert floats.read_bytes(0, 8) == array.array("f", [1, 2]).tobytes()


def test_dates_of_pythons_are_objects(device: Device) -> None:
    with device.allocate(1, "float64") as memory, pytest.raises(TypeError, match="a list of object"):
        memory.write([datetime(2020, 1, 1)])
