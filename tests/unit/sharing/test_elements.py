"""Element types: their canonical texts, sizes and bounds; texts of other processes."""

from __future__ import annotations

import sys
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extmem.sharing import elements
from extmem.sharing.elements import ELEMENT_NAMES, FOREIGN, ElementType, Field, element_type, nbytes_of, structure

_PLAIN = [element_type(name) for name in ELEMENT_NAMES]
_OTHERS = [
    element_type(text)
    for text in (
        "datetime64[ns]", "timedelta64[25us]", "datetime64", "bytes16", "str8", "void4", f"{FOREIGN}float32",
        f"{FOREIGN}datetime64[ns]", f"{FOREIGN}str8", f"{FOREIGN}complex128", f"{FOREIGN}bfloat16",
    )
]  # fmt: skip


def _some_structure(random: Random, depth: int = 2) -> ElementType:
    simple = [one for one in _PLAIN + _OTHERS if not one.packed]
    fields: list[Field] = []
    end = 0
    for number in range(random.randint(1, 4)):
        nested = depth and random.random() < 0.3
        element = _some_structure(random, depth - 1) if nested else random.choice(simple)
        shape = tuple(random.randint(0, 4) for _ in range(random.choice((0, 0, 1, 2))))
        name = f"{random.choice(('x', 'é', '', chr(0), '@}', '{:,(', chr(34), chr(0xD800)))}{number}"
        fields.append(Field(name, element, shape, random.randint(0, end + 8)))
        end = max(end, fields[-1].offset + fields[-1].size)
    return structure(fields, max(1, end + random.randint(0, 8)))


@pytest.mark.parametrize("element", _PLAIN + _OTHERS, ids=lambda one: one.text)
def test_each_text_is_that_of_one_type(element: ElementType) -> None:
    assert element_type(element.text) == element
    assert element.storage_bits == (element.bits if element.packed else (element.itemsize or 0) * 8)
    assert element.swapped().swapped() == element and element.unpacked.itemsize
    assert element.swapped().native != element.native or element.byte_order == "|"
    if element.dlpack is not None:
        code, bits, lanes = element.dlpack
        assert code <= 17 and bits * lanes == element.bits and element.native


def test_the_names_are_those_of_dlpack_numpy_and_ml_dtypes() -> None:
    codes = {element.dlpack[0] for element in _PLAIN if element.dlpack}
    assert codes == set(range(18)) - {3}  # 3 is the type of opaque pointers
    for text, bits, itemsize in (
        ("int4", 4, 1),
        ("int4_packed", 4, None),
        ("float8_e4m3", 8, 1),
        ("float6_e2m3fn_packed", 6, None),
        ("float4_e2m1fn_x2", 8, 1),
        ("complex32", 32, 4),
        ("float128", 128, 16),
        ("datetime64[ns]", 64, 8),
        ("str8", 256, 32),
    ):
        element = element_type(text)
        assert (element.bits, element.itemsize) == (bits, itemsize)
    # The semantics differ, so the types do.
    assert element_type("float8_e4m3").dlpack != element_type("float8_e4m3fn").dlpack
    assert element_type("int4").padded and not element_type("int4_packed").padded


@pytest.mark.parametrize(
    "text",
    [
        "", "float", "Float32", "float32 ", "float33", "f4", "<f4", "=float32", "|uint8", f"{FOREIGN}uint8",
        f"{elements.NATIVE}float32", f"{FOREIGN}{FOREIGN}float32", f"{FOREIGN}bytes4", f"{FOREIGN}int4_packed",
        "int8_packed", "bool_packed", "object", "datetime64[]", "datetime64[1ns]", "datetime64[0ns]",
        "datetime64[007ns]", "datetime64[x]", "datetime64[99999999999s]", "datetime64[ns", "bytes", "bytes0", "bytes-1",
        "bytes01", "bytes9999999999", "str²", "str536870912", "{}4", "{", "}", '{"x"}', '{"x":}4', '{"x":float32}4',
        '{"x":float32@0}', '{"x":float32@0}3', '{"x":float32@0}04', '{"x":float32@0}4 ', '{"x": float32@0}4',
        '{"x":float32@1}4', '{"x":int4_packed@0}4', '{"x":()float32@0}4', '{"x":(2)float32@0}4', '{"x":(a)float32@0}4',
        '{"x":float32@0,}4', '{"x":float32@0,"x":float32@0}4', '{"\\u0078":float32@0}4', '{"x:float32@0}4', '{"x',
        '{"é":float32@0}4', "{x:float32@0}4", '{"x":{"y":float32@0}4@0}3', '{"x":(2,(2))float32@0}9999', "{" * 2000,
        '{"x":' * 400, "x" * 3000,
    ],
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"element type|structure|field"):
        element_type(text)


def test_a_structure_is_its_text() -> None:
    random = Random(17)
    for _ in range(200):
        try:
            element = _some_structure(random)
        except ValueError as error:
            assert "characters to describe" in str(error)
            continue
        assert element_type(element.text) == element and element.text.isascii()
        try:
            assert element.swapped().swapped() == element
        except ValueError as error:
            assert "characters to describe" in str(error)


def test_a_structure_has_gaps_overlaps_arrays_and_levels() -> None:
    point = structure([Field("x", element_type("float32"), (), 0), Field("y", element_type("float32"), (), 4)], 8)
    assert point.text == '{"x":float32@0,"y":float32@4}8' and point.alignment == 4 and point.native
    whole = structure([Field("p", point, (2,), 0), Field("é\ud800", element_type("bytes3"), (), 5)], 20)
    assert whole.text == '{"p":(2){"x":float32@0,"y":float32@4}8@0,"\\u00e9\\ud800":bytes3@5}20'
    assert element_type(whole.text) == whole and whole.fields[0].size == 16
    assert (
        not whole.swapped().native and whole.swapped().fields[0].element.fields[1].element.text == f"{FOREIGN}float32"
    )


def test_the_alignment_of_a_structure_is_one_that_its_elements_have() -> None:
    double = element_type("float64")
    for fields, size, alignment in (
        ([Field("b", double, (), 8)], 16, 8),
        ([Field("b", double, (), 4)], 12, 4),
        ([Field("b", double, (), 3)], 11, 1),
        ([Field("b", double, (), 8)], 18, 2),
        ([Field("a", element_type("bytes3"), (), 0), Field("b", double, (), 8)], 16, 8),
    ):
        assert structure(fields, size).alignment == alignment


def test_a_structure_has_limits() -> None:
    nested = element_type("uint8")
    for _ in range(16):
        nested = structure([Field("n", nested, (), 0)], 1)
    assert element_type(nested.text) == nested
    with pytest.raises(ValueError, match="more than 16 levels"):
        structure([Field("n", nested, (), 0)], 1)
    with pytest.raises(ValueError, match="characters to describe"):
        structure([Field("n" * 2100, element_type("uint8"), (), 0)], 1)
    with pytest.raises(ValueError, match="without fields"):
        structure([], 1)


def test_bytes_without_gaps() -> None:
    assert nbytes_of(element_type("float32"), (2, 3)) == 24
    assert nbytes_of(element_type("int4"), (3,)) == 3
    assert nbytes_of(element_type("int4_packed"), (3,)) == 2
    assert nbytes_of(element_type("float6_e2m3fn_packed"), (5,)) == 4
    assert nbytes_of(element_type("int1_packed"), ()) == 1
    assert nbytes_of(element_type("float64"), (0, 5)) == 0


def test_the_size_of_an_element_is_numpys() -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    for element in _PLAIN:
        if element.text in numpy.sctypeDict and sys.platform != "win32":
            dtype = numpy.dtype(element.text)
            assert (dtype.itemsize, dtype.alignment) == (element.itemsize, element.alignment), element.text


@given(st.text(alphabet='{}()",:@[]<>0123456789abcdefilnostuxy_\\', max_size=40))
def test_no_text_does_anything_else(text: str) -> None:
    try:
        assert element_type(text).text == text
    except ValueError:
        pass
