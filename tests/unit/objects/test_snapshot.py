"""Which rows of a snapshot a viewer may see, and the number in the page of which it may know."""

from __future__ import annotations

import pytest

from extmem.objects import Token
from tests.unit.objects.world import ALICE, EVE, ROOT, World


def readable(world: World, viewer: Token) -> list[bool]:
    """Return for each payload that the viewer sees whether it may know the number in its page."""
    return [part.readable for part in world.m.walk(viewer) if part is not None and part.row is not None]


@pytest.mark.parametrize(("right", "shown"), [("GR", [True]), ("0x1", [False])])
def test_who_may_read_memory_may_know_its_generation(world: World, right: str, shown: list[bool]) -> None:
    world.export("frames", sddl=f"D:(A;;{right};;;S-1-22-1-{EVE.uid})(A;;GA;;;OW)")
    assert readable(world, EVE) == shown
    assert readable(world, ALICE) == readable(world, ROOT) == [True]


def test_what_nobody_may_open_is_no_row(world: World) -> None:
    world.export("frames", sddl=None)
    assert (readable(world, EVE), readable(world, ALICE)) == ([], [True])
