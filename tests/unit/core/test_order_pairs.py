"""Pairs (timeline, value): the shapes that calls take, and a clear error for every other one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device
from extmem.core import order_pairs
from extmem.owning import Uses

Give = Callable[[Any, Any, Any], object]
"""Makes an argument of a timeline, a binary semaphore and a fence."""


def test_pairs_are_one_or_a_list(device: Device) -> None:
    with device.timeline() as first, device.create_semaphore(vk.SemaphoreCreateInfo()) as second, Uses() as uses:
        for given, values in (
            (None, []),
            ((first, 3), [3]),
            ([(first, 3)], [3]),
            (second, [0]),
            ((second, 7), [7]),
            ([(first, 1), second, (first, 2)], [1, 0, 2]),
            (((first, 1), (first, 2)), [1, 2]),
            ((second, (first, 2)), [0, 2]),
        ):
            assert [value for _, value in order_pairs.pairs(given, uses, "wait")] == values


def test_waits_are_one_pair_or_any_iterable(device: Device) -> None:
    with device.timeline(4) as first, Uses() as uses:
        for given, values in (
            ((first, 3), [3]),
            ([(first, 3), [first, 4]], [3, 4]),
            ({(first, 2)}, [2]),
            (((first, one) for one in range(3)), [0, 1, 2]),
            (zip([first], [1], strict=True), [1]),
            ((), []),
        ):
            assert [value for _, value in order_pairs.timeline_pairs(given, uses)] == values
        extmem.wait_all((first, 4))
        assert extmem.wait_any((first, 4)) == 0


WRONG: dict[str, tuple[Give, type[Exception], str]] = {
    "a timeline alone": (lambda t, b, f: t, TypeError, "a pair|of pairs"),
    "without a value": (lambda t, b, f: [(t, 1), t], TypeError, "give a pair"),
    "None as value": (lambda t, b, f: [(t, None)], TypeError, "without a value|None, a NoneType; give a whole number"),
    "three parts": (lambda t, b, f: [(t, 1, 2)], TypeError, r"is .*, a tuple; give a pair"),
    "a flat list": (lambda t, b, f: [t, 1], TypeError, "give a pair"),
    "the value first": (lambda t, b, f: [(1, t)], TypeError, "give the timeline first"),
    "a dict": (lambda t, b, f: {t: 1}, TypeError, "a dict; give"),
    "text": (lambda t, b, f: "name", TypeError, "'name', a str; give"),
    "a name for a timeline": (lambda t, b, f: [("name", 1)], TypeError, r"\('name', 1\), a tuple; give a pair"),
    "a number": (lambda t, b, f: 7, TypeError, "is 7, an int; give"),
    "None in a list": (lambda t, b, f: [(t, 1), None], TypeError, r"\[1\] is None, a NoneType; give a pair"),
    "a fence": (lambda t, b, f: [(f, 1)], TypeError, "has a fence: .*Fence.wait"),
    "a bool": (lambda t, b, f: [(t, True)], TypeError, "the value of .* is True, a bool"),
    "a float": (lambda t, b, f: [(t, 1.5)], TypeError, "the value of .* is 1.5, a float"),
    "a negative value": (lambda t, b, f: [(t, -1)], ValueError, "is -1, and a timeline has 64 bits"),
    "more than 64 bits": (lambda t, b, f: [(t, 1 << 64)], ValueError, "and a timeline has 64 bits; give"),
    "a long text": (lambda t, b, f: [("x" * 10_000, 1)], TypeError, "^.{0,300}$"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_other_shape_has_an_error_that_names_it(device: Device, wrong: str) -> None:
    give, kind, words = WRONG[wrong]
    with (
        device.timeline(9) as timeline,
        device.create_semaphore(vk.SemaphoreCreateInfo()) as binary,
        device.fence() as fence,
    ):
        given: Any = give(timeline, binary, fence)
        for call in (
            lambda: device.commands(wait=given),
            lambda: device.commands(signal=given),
            lambda: extmem.wait_all(given),
            lambda: extmem.wait_any(given),
        ):
            with pytest.raises(kind, match=words):
                call()
        # Nothing holds them: each is released when it is closed.
        with device.commands(wait=(timeline, 9), signal=[]):
            pass


def test_the_host_waits_for_timelines_alone(device: Device) -> None:
    with device.create_semaphore(vk.SemaphoreCreateInfo()) as binary, device.timeline(1) as timeline:
        for call in (extmem.wait_all, extmem.wait_any):
            with pytest.raises(TypeError, match=r"waits\[1\] has <Semaphore .*, which is binary"):
                call([(timeline, 1), (binary, 1)])  # type: ignore[list-item]


def test_a_closed_timeline_is_told_in_every_place(device: Device) -> None:
    closed = device.timeline()
    closed.close()
    for call in (
        lambda: device.commands(wait=(closed, 1)),
        lambda: device.commands(signal=[(closed, 1)]),
        lambda: extmem.wait_all([(closed, 1)]),
        lambda: extmem.wait_any((closed, 1)),
    ):
        with pytest.raises(extmem.HandleStateError, match="timeline .* is closed"):
            call()
