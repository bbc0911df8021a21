"""Where elements lie: strides in bytes and bits, reach, overlap, order; compared with every element one by one."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from extmem.errors import DescriptorError
from extmem.sharing.descriptor.contents import ArrayInfo, check_array
from extmem.sharing.elements import ElementType, element_type, nbytes_of
from extmem.sharing.layout import (
    ArrayLayout,
    contiguous_strides,
    is_dense,
    layout_for,
    overlapping_axis,
    reach_of,
    without_odd_strides,
)

ELEMENTS = [element_type(text) for text in ("uint8", "int4", "bfloat16", "float64", "int4_packed", "int3_packed")]


def _places(shape: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """Where each element begins, in bytes or bits."""
    axes = [[index * step for index in range(extent)] for extent, step in zip(shape, strides, strict=True)]
    return [sum(one) for one in itertools.product(*axes)]


def _some(random: Random) -> tuple[tuple[int, ...], tuple[int, ...], ElementType]:
    element = random.choice(ELEMENTS)
    shape = tuple(random.randint(0, 4) for _ in range(random.randint(0, 3)))
    order = random.choice("CF")
    strides = contiguous_strides(shape, element.step, order)
    if random.random() < 0.6:
        strides = tuple(
            random.choice((step, step + element.step, -step, 0, random.randint(-9, 40))) for step in strides
        )
    return shape, strides, element


def test_reach_and_overlap_are_those_of_the_elements() -> None:
    random, seen = Random(5), set()
    for _ in range(1500):
        shape, strides, element = _some(random)
        places, item = _places(shape, strides), element.step
        unit = 8 if element.packed else 1
        first, last = reach_of(shape, strides, element)
        if places:
            assert (first, last) == (min(places) // unit, -(-(max(places) + item) // unit))
        else:
            assert (first, last) == (0, 0)
        ordered = sorted(places)
        overlaps = any(b - a < item for a, b in itertools.pairwise(ordered))
        if overlaps:
            assert overlapping_axis(shape, strides, item) is not None
        dense = is_dense(shape, strides, item, range(len(shape) - 1, -1, -1))
        assert dense == (places == list(range(0, len(places) * item, item)))
        seen.add((overlaps, dense))
    assert seen == {(True, False), (False, True), (False, False)}


def test_a_layout_and_a_descriptor_are_accepted_if_all_elements_are_inside() -> None:
    random, accepted = Random(6), 0
    for _ in range(1500):
        shape, strides, element = _some(random)
        size, offset = random.randint(1, 80), random.choice((0, 0, 1, 8))
        unit = 8 if element.packed else 1
        places = [place + offset * unit for place in _places(shape, strides)]
        inside = offset <= size and all(0 <= place and place + element.step <= size * unit for place in places)
        try:
            layout = layout_for(size, None, dtype=element, shape=shape, strides=strides, offset=offset)
            assert inside and layout.nbytes == nbytes_of(element, shape)
            accepted += 1
        except ValueError:
            assert not inside
        if offset == 0:
            fits = inside and nbytes_of(element, shape) <= size
            try:
                check_array(ArrayInfo(shape, element.text, strides), size)
                assert fits
            except DescriptorError:
                assert not fits
    assert 200 < accepted < 1400


def test_axes_of_one_element_get_usual_strides() -> None:
    for shape, strides, usual in (
        ((1, 4), (-7, 2), (8, 2)),
        ((2, 1), (16, -3), (16, 2)),
        ((0, 3), (-1, -1), (6, 2)),
        ((2, 2), (2, 4), (2, 4)),
        ((), (), ()),
    ):
        layout = ArrayLayout(shape, "bfloat16", strides, 8)
        assert without_odd_strides(layout) == ArrayLayout(shape, "bfloat16", usual, 8)


def test_the_rest_of_a_payload_of_packed_elements() -> None:
    assert layout_for(3, None, dtype="int4_packed").shape == (6,)
    assert layout_for(3, None, dtype="float6_e2m3fn_packed", offset=0).shape == (4,)
    with pytest.raises(ValueError, match="not a whole number of float6_e2m3fn_packed elements of 6 bits"):
        layout_for(4, None, dtype="float6_e2m3fn_packed")


def test_the_order_in_a_descriptor() -> None:
    for text in ("float32", "int4_packed"):
        step = element_type(text).step
        assert ArrayInfo((2, 3), text, (3 * step, step)).order == "C"
        assert ArrayInfo((2, 3), text, (step, 2 * step)).order == "F"
        assert ArrayInfo((2, 3), text, (4 * step, step)).order == "strided"
