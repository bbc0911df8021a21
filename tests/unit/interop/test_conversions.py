"""Casts that a program requested, and numbers of Python, for every element type: exact rules, nothing silent."""

from __future__ import annotations

from typing import Any

import pytest

import extmem
from extmem.api import Device

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.fixture
def small() -> Any:
    return pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")


@pytest.mark.parametrize(
    ("given_as", "target"),
    [
        ("float32", "bfloat16"), ("int8", "bfloat16"), ("bfloat16", "float16"), ("bool", "float8_e4m3fn"),
        ("float64", "float8_e5m2"), ("int64", "int4"), ("uint16", "int4"), ("float32", "complex32"),
        ("complex64", "bcomplex32"), ("bfloat16", ">f4"), ("float8_e4m3", "float8_e4m3fn"), (">i2", "int32"),
    ],
)  # fmt: skip
def test_a_cast_within_a_kind_is_made_only_if_requested(device: Device, small: Any, given_as: str, target: str) -> None:
    dtype = getattr(small, given_as, given_as)
    data = numpy.array([0, 1, 1], dtype)
    with device.allocate(3, target) as memory:
        with pytest.raises(TypeError, match=r"data is .*the payload|byte order"):
            memory.write(data)
        assert memory.tobytes() == bytes(memory.size)
        memory.write(data, cast=True)
        assert memory.read().astype("complex128").tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("given_as", "target"),
    [("float32", "int4"), ("bfloat16", "int32"), ("complex64", "bfloat16"), ("bfloat16", "datetime64[s]"),
     ("M8[s]", "bfloat16"), ("S3", "bfloat16"), ("int4", "uint4"), ("float32", "int4_packed")],
)  # fmt: skip
def test_a_cast_to_another_kind_is_refused(device: Device, small: Any, given_as: str, target: str) -> None:
    data = numpy.zeros(4, getattr(small, given_as, given_as))
    with device.allocate(4, target) as memory, pytest.raises(TypeError, match=r"same kind|cannot convert"):
        memory.write(data, cast=True)


@pytest.mark.parametrize(
    ("target", "fitting", "others"),
    [
        ("bfloat16", [0, -1.5, 3e38, float("inf"), float("nan"), 1 << 70], [1e39, -1e300]),
        ("float8_e4m3fn", [448, -0.1, float("nan")], [1000, float("inf")]),
        ("float8_e4m3", [240.0, float("inf")], [1000.0]),
        ("float8_e8m0fnu", [1.0, 0.25], [-1.0, 0.0, 1e300]),
        ("float6_e2m3fn", [7.5, -7.5, 0.125], [8.0, -100, float("nan"), float("inf")]),
        ("float4_e2m1fn", [6, -6.0, 0.5, 2.6], [7.5, -9, float("nan"), float("-inf"), 1 << 70]),
        ("int4", [7, -8, True], [8, -9, 100]),
        ("uint2", [3, 0], [4, -1]),
        ("int1", [0, -1], [1, -2]),
        ("complex32", [1 + 2j, 65504, 0.5], [1e6 + 0j, 1e6j]),
        ("bcomplex32", [1 + 2j, 1e6], [1e300]),
        (">f4", [1.5, 2, 3e38], [1e39]),
        (">i2", [1, -32768], [32768]),
        ("float128", [1e300], []),
    ],
)
def test_numbers_of_python_fit_or_are_refused(
    device: Device, small: Any, target: str, fitting: list[Any], others: list[Any]
) -> None:
    with device.allocate((), target) as memory:
        for value in fitting:
            try:
                memory.write(value)
            except extmem.UnsupportedError as error:
                assert target == "float128" and "long double" in str(error)
                return
            found = complex(memory.read().astype("complex128"))
            assert found != found if value != value else abs(found - value) <= 0.25 * abs(value) or found == value
        last = memory.tobytes()
        for value in others:
            with pytest.raises(ValueError, match=r"fit"):
                memory.write(value)
        assert memory.tobytes() == last


def test_numbers_of_another_kind_are_refused(device: Device, small: Any) -> None:
    for target, value in (("int4", 1.5), ("bfloat16", 1j), ("datetime64[s]", 5), ("str4", 5), ("float32", "x")):
        with device.allocate((), target) as memory, pytest.raises(TypeError, match="convert it first"):
            memory.write(value)


def test_text_and_dates(device: Device) -> None:
    with device.allocate(2, "str4") as memory:
        memory.write(["ab", "ümlt"])
        assert memory.read().tolist() == ["ab", "ümlt"]
        with pytest.raises(ValueError, match="does not fit str4"):
            memory.write(["ab", "longer"])
        memory.write(numpy.array(["x", "yz"]), cast=True)
        assert memory.read().tolist() == ["x", "yz"]
    with device.allocate(2, "bytes3") as memory:
        memory.write([b"a", b"abc"])
        assert memory.read().tolist() == [b"a", b"abc"]
    with device.allocate(2, "datetime64[s]") as memory:
        days = numpy.array(["2026-01-01", "NaT"], "M8[D]")
        with pytest.raises(TypeError, match=r"data is datetime64\[D\]"):
            memory.write(days)
        memory.write(days, cast=True)
        assert (memory.read()[:1] == days[:1]).all() and numpy.isnat(memory.read()[1])
        assert (memory.numpy("int64")[0],) == (1767225600,)


def test_structures_are_written_whole(device: Device) -> None:
    dtype = numpy.dtype([("x", "f4"), ("s", "S3"), ("m", "i2", (2,))], align=True)
    data = numpy.zeros(3, dtype)
    data["x"], data["s"], data["m"] = [1, 2, 3], b"abc", [[1, 2], [3, 4], [5, 6]]
    with device.allocate(3, dtype, name=None) as memory:
        memory.write(data)
        assert (memory.read() == data).all() and memory.numpy().dtype == dtype
        assert (numpy.asarray(memory) == data).all()
        with pytest.raises(TypeError, match="the payload holds"):
            memory.write(data.astype([("x", "f8"), ("s", "S3"), ("m", "i2", (2,))]))


@pytest.mark.slow("imports PyTorch")
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_tensors_of_types_that_numpy_lacks(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from extmem.interop import element_types

    for name in ("bfloat16", "float8_e4m3fn", "float4_e2m1fn_x2", "complex32", "int4"):
        data = torch.arange(8, dtype=torch.uint8).view(getattr(torch, name))
        with device.allocate(data.shape, data.dtype) as memory:
            memory.write(data)
            assert memory.dtype == name
            assert (memory.torch().view(torch.uint8) == data.view(torch.uint8)).all()
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    element_types._numpy_dtype.cache_clear()
    with device.allocate((2, 3), "bfloat16", order="F") as memory:
        memory.write(torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.bfloat16))
        assert memory.torch().tolist() == [[1, 2, 3], [4, 5, 6]]
    with device.allocate(3, "bfloat16") as memory, device.allocate(3, "float32") as floats:
        memory.write(torch.tensor([1, 2, 3], dtype=torch.bfloat16))
        assert memory.torch().tolist() == [1, 2, 3]
        floats.write(torch.tensor([1, 2, 3], dtype=torch.bfloat16), cast=True)
        assert floats.read().tolist() == [1, 2, 3]
    element_types._numpy_dtype.cache_clear()
