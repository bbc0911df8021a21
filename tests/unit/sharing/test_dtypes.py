"""What programs write for an element type: names, codes, and types of the frameworks that are installed."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from extmem.sharing.dtypes import descr, element_of, typestr
from extmem.sharing.elements import ELEMENT_NAMES, FOREIGN, NATIVE, element_type

numpy = pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.mark.parametrize("name", ELEMENT_NAMES)
def test_names_are_canonical_texts(name: str) -> None:
    assert element_of(name) == element_of(element_type(name)) == element_type(name)
    assert element_of(f"={name}").text == name


@pytest.mark.parametrize(
    ("given_as", "text"),
    [
        ("M8[ns]", "datetime64[ns]"),
        ("<m8[25us]", "timedelta64[25us]"),
        ("M8", "datetime64"),
        ("S16", "bytes16"),
        ("|S16", "bytes16"),
        ("U8", "str8"),
        ("V3", "void3"),
        ("f16", "float128"),
        ("c32", "complex256"),
        (f"{FOREIGN}U2", f"{FOREIGN}str2"),
        (f"{FOREIGN}M8[s]", f"{FOREIGN}datetime64[s]"),
        (f"{FOREIGN}bfloat16", f"{FOREIGN}bfloat16"),
        (f"{FOREIGN}float8_e5m2", "float8_e5m2"),
        (f"{NATIVE}bfloat16", "bfloat16"),
        ((2, 32, 1), "float32"),
        ((4, 16, 1), "bfloat16"),
        ((17, 4, 1), "float4_e2m1fn_packed"),
        ((17, 4, 2), "float4_e2m1fn_x2"),
    ],
)
def test_codes_and_names_of_every_kind(given_as: object, text: str) -> None:
    assert element_of(given_as).text == text


@pytest.mark.parametrize(
    "bad", ["M8[", "M4[s]", "S", "S0", "U-1", "M", "V", "q", (2, 32), (3, 64, 1), (2, 32, "1"), ()]
)
def test_other_codes_are_refused_with_the_list(bad: object) -> None:
    with pytest.raises(ValueError, match="not an element type that can be shared.*; use one of bool.*bfloat16"):
        element_of(bad)


def test_numpys_types_are_taken_as_a_whole() -> None:
    for code in ("?", "b", "f2", "f4", "c8", "M8[ns]", "m8[3D]", "M8", "S3", "U2", "V5", "f4,i2", "i4,(2,3)f2"):
        dtype = numpy.dtype(code)
        for one in (dtype, dtype.newbyteorder()):
            element = element_of(one)
            assert element.itemsize == one.itemsize and element.native == one.isnative
    record = numpy.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [8, 2], "itemsize": 24})
    assert element_of(record).text == '{"a":int32@8,"b":float64@2}24'
    assert element_of(numpy.zeros(2, "f4,i2").dtype).fields[1].element.text == "int16"


def test_numpys_types_that_are_not_plain_memory_are_refused() -> None:
    for bad, text in (
        (numpy.dtype("O"), "Python objects"),
        (numpy.dtype([("a", "O")]), "Python objects"),
        (numpy.dtype([(("title", "a"), "f4")]), "title 'title'"),
        (numpy.dtype(("f4", (2,))), r"add the extents \(2,\)"),
        (numpy.dtype("S0"), "not an element type"),
        (numpy.str_, "not an element type"),
        (numpy.dtypes.StringDType(), "Python objects|not an element type"),
    ):
        with pytest.raises(ValueError, match=text):
            element_of(bad)


def test_ml_dtypes_types_are_not_taken_by_their_kind_or_code() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    names = [name for name in ELEMENT_NAMES if hasattr(ml_dtypes, name)]
    assert "bfloat16" in names and "int4" in names
    for name in names:
        scalar = getattr(ml_dtypes, name)
        assert element_of(scalar).text == element_of(numpy.dtype(scalar)).text == name
        assert numpy.dtype(scalar).itemsize == element_type(name).itemsize


@pytest.mark.slow("imports PyTorch")
def test_pytorchs_types_by_meaning() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for name in dir(torch):
        dtype = getattr(torch, name)
        if not isinstance(dtype, torch.dtype):
            continue
        if str(dtype).removeprefix("torch.").startswith(("q", "bit")):
            with pytest.raises(ValueError, match="the bytes alone are not its values"):
                element_of(dtype)
        else:
            element = element_of(dtype)
            assert element.itemsize == dtype.itemsize and f"torch.{element.text}" == str(dtype)


def test_another_packages_type_is_not_taken_by_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    class Looks:
        def __str__(self) -> str:
            return "torch.float32"

    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(dtype=int))
    with pytest.raises(ValueError, match="not an element type"):
        element_of(Looks())


def test_pyarrows_types_by_meaning() -> None:
    pyarrow: Any = pytest.importorskip("pyarrow", reason="PyArrow is not installed")
    for given_as, text in (
        (pyarrow.float32(), "float32"),
        (pyarrow.float16(), "float16"),
        (pyarrow.float64(), "float64"),
        (pyarrow.uint16(), "uint16"),
        (pyarrow.timestamp("ns"), "datetime64[ns]"),
        (pyarrow.duration("us"), "timedelta64[us]"),
        (pyarrow.date64(), "datetime64[ms]"),
        (pyarrow.binary(5), "void5"),
    ):
        assert element_of(given_as).text == text
    for bad in (pyarrow.bool_(), pyarrow.string(), pyarrow.date32(), pyarrow.timestamp("s", "UTC"), pyarrow.null()):
        with pytest.raises(ValueError, match="PyArrow's .* is not an element type"):
            element_of(bad)


def test_a_type_has_the_code_that_numpy_gives_it() -> None:
    for code in ("b1", "i1", "u8", "f2", "c16", "M8[25s]", "m8", "S3", "U2", "V5"):
        for dtype in (numpy.dtype(code), numpy.dtype(code).newbyteorder()):
            assert typestr(element_of(dtype)) == dtype.str
    for name in ("bfloat16", "int4", "int4_packed", "float8_e5m2", "complex32", f"{FOREIGN}bfloat16"):
        assert typestr(element_type(name)) is None


def test_a_structure_has_a_description_if_it_has_no_gaps() -> None:
    for code in ("f4,i2", "S3,(2,2)f8,M8[s]", [("a", "f4,U2"), ("b", f"{FOREIGN}i2")]):
        dtype = numpy.dtype(code)
        assert numpy.dtype(descr(element_of(dtype))) == dtype and typestr(element_of(dtype)) == f"|V{dtype.itemsize}"
    gaps = numpy.dtype("u1,f4", align=True)
    assert descr(element_of(gaps)) is None and descr(element_type('{"b":bfloat16@0}2')) is None
    assert descr(element_type("float32")) is None


@pytest.mark.parametrize(("given", "near"), [("bf16", "'bfloat16'"), ("Float32", "'float32'"), ("zzz", None)])
def test_a_name_that_is_nearly_one_is_told(given: str, near: str | None) -> None:
    with pytest.raises(ValueError, match="not an element type that can be shared") as caught:
        element_of(given)
    assert (near in str(caught.value).partition(";")[0]) if near else ("did you mean" not in str(caught.value))
