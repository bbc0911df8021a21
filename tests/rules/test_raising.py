"""Every rule with status "checked" is raised by a public call, and a rule that cannot be raised has another status.

`tests.rules.raising` makes the wrong call of the rule's own case on the host device and on a scripted
GPU, by `Device`'s methods; where the rule depends on memory, payloads or resources, `tests.rules.recipes` creates them,
also by public calls. A rule counts as raised when the error of that call has its id.
"""

from __future__ import annotations

import pytest

import extmem
from extmem.rules import ledger
from extmem.rules._engine import CHECKED
from tests.rules.raising import replay, structs_of
from tests.rules.recipes import OF_FDS, RECIPES, World
from tests.rules.test_ledger import without_check
from tests.systems import on_linux

PLANAR = "tests/process/vulkan/test_commands.py raises it where the driver has multi-planar images"
NOT_HERE = {
    "VUID-VkMemoryAllocateInfo-memoryTypeIndex-00645": "it needs memory of Direct3D, and a Windows driver",
    "VUID-VkMemoryAllocateInfo-allocationSize-00647": "it needs a heap of Direct3D 12, and a Windows driver",
    "VUID-VkImageMemoryBarrier-dstQueueFamilyIndex-12331": "it needs a texture of Direct3D 11, and a Windows driver",
    "VUID-VkImageMemoryBarrier-srcQueueFamilyIndex-12332": "it needs a texture of Direct3D 11, and a Windows driver",
    "VUID-VkMemoryAllocateInfo-memoryTypeIndex-00648": "it needs a driver that imports dma-bufs",
    "VUID-vkCmdCopyImageToBuffer-srcImage-07981": PLANAR,
    "VUID-vkCmdCopyImageToBuffer-srcImage-07976": PLANAR,
    "VUID-vkCmdCopyBufferToImage-dstImage-07981": PLANAR,
    "VUID-vkCmdCopyBufferToImage-dstImage-07976": PLANAR,
    "VUID-vkCmdClearColorImage-image-01545": PLANAR,
    "VUID-VkImageMemoryBarrier-image-09242": PLANAR,
    "VUID-vkGetImageSubresourceLayout-tiling-08717": PLANAR,
    "VUID-vkGetImageSubresourceLayout-tiling-09433": "it needs a driver with images of format modifiers",
    "VUID-vkGetImageSubresourceLayout-format-04462": "it needs a driver with LINEAR images of depth",
    "VUID-vkGetImageSubresourceLayout-format-04463": "it needs a driver with LINEAR images of stencil",
    "VUID-vkCmdCopyImageToBuffer-srcImage-07973": "tests/process/vulkan/test_commands.py raises it on a real driver",
    "VUID-vkCmdCopyBufferToImage-dstImage-07973": "tests/process/vulkan/test_commands.py raises it on a real driver",
}
"""Checked rules that no call on this machine can raise, with the reason: the calls exist, but no such driver."""
SUBMITS = hasattr(extmem.Device, "queue_submit")
"""Whether devices have the commands of semaphores and fences."""


def _has_commands(row: ledger.Row) -> bool:
    """Return whether devices have the commands that could raise the rule."""
    return SUBMITS or (row.family not in ("semaphore", "fence") and "KeyedMutex" not in row.struct)


RAISED = [
    on_linux(row.vuid) if row.vuid in OF_FDS else row.vuid
    for row in ledger.rows(status="checked")
    if row.vuid not in NOT_HERE and _has_commands(row)
]


def raised(vuid: str) -> set[str]:
    """Return the rules that the public calls for this one broke."""
    with World() as world:
        if vuid in RECIPES:
            return RECIPES[vuid](world)
        calls = structs_of(vuid)
        return replay(world.host, calls) | replay(world.gpu(), calls)


@pytest.mark.parametrize("vuid", RAISED)
def test_a_public_call_raises_the_rule(vuid: str) -> None:
    assert vuid in raised(vuid)


def test_what_cannot_be_raised_here_is_checked_all_the_same() -> None:
    """The list of exceptions contains only rules that exist and have a check."""
    for vuid in NOT_HERE:
        assert ledger.find(vuid).status == "checked" and CHECKED[vuid]
    assert set(RECIPES) <= {row.vuid for row in ledger.rows(status="checked")}


def test_a_rule_that_is_on_request_is_raised_by_none_of_these_calls() -> None:
    """The same calls for rules that are on request. If one of them were raised, its status would have to be checked."""
    for row in ledger.rows(status="on request"):
        assert row.vuid not in (raised(row.vuid) if _has_commands(row) else ())
        assert row.reason


def test_a_rule_that_nobody_checks_is_raised_by_no_call() -> None:
    """The planted fault: without its check the same call does not raise the rule."""
    vuid = "VUID-VkBufferCreateInfo-size-00912"
    assert vuid in raised(vuid)
    with without_check(vuid):
        assert vuid not in raised(vuid)


def test_a_call_that_breaks_nothing_raises_nothing() -> None:
    with World() as world:
        legal = world.resource(world.host, "buffer").create_info
        assert replay(world.host, [("check_create_buffer", (legal,))]) == set()
