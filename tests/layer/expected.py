"""The messages of the validation layer that tests provoke on purpose, each with its reason. Any other fails its test.

An entry is for the tests whose name begins with `test`: `folder/test_file.py::test_name`, below tests/. A test that
does not provoke a message of its entry fails as well, unless the entry is `partial`: then each of its messages may be
missing, as it depends on the driver or on the order of tests. So an entry that no test needs is found and removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["EXPECTED", "OUTDATED", "Expected", "missing", "unexpected"]


@dataclass(frozen=True)
class Expected:
    """Messages that some tests may provoke."""

    test: str
    ids: frozenset[str]
    reason: str
    partial: bool = False


def _entry(test: str, *ids: str, reason: str, partial: bool = False) -> Expected:
    return Expected(test, frozenset(ids), reason, partial)


OUTDATED = {
    "VUID-VkMemoryDedicatedAllocateInfo-image-01433": "the specification has allowed more than the image requires "
    "since; Debian 12's layer of version 1.3.239 has the former rule",
    "VUID-VkMemoryDedicatedAllocateInfo-buffer-01435": "as image-01433, for buffers",
    "UNASSIGNED-VkSemaphore-state-timeout": "a layer of version 1.3.239 waits ten seconds for its own thread when the "
    "host signals a timeline that a queue waits for; its message calls that most likely a validation bug",
    "UNASSIGNED-VkFence-state-timeout": "as VkSemaphore-state-timeout, for a fence behind that wait",
}
"""Messages of old layers alone, and why: rules that the specification has no more, and faults. Any test may cause
them.
"""
_NEWER = "the layer of Debian 12 does not report it, newer ones do"
_LENIENT = "process/vulkan/test_leniency.py::"
_PAST_CHECKS = "calls the driver without the checks, to test what the driver accepts"

EXPECTED: tuple[Expected, ...] = (
    _entry(
        _LENIENT + "test_a_memory_type_that_is_not_there",
        "VUID-vkAllocateMemory-pAllocateInfo-01714",
        reason=_PAST_CHECKS,
    ),
    _entry(
        _LENIENT + "test_allocations_and_imports_of_nothing",
        "VUID-VkMemoryAllocateInfo-allocationSize-00638",
        "VUID-VkMemoryAllocateInfo-allocationSize-07897",
        "VUID-VkMemoryAllocateInfo-allocationSize-07899",
        reason=_PAST_CHECKS + ": the first is the id of old layers, the others of newer ones",
        partial=True,
    ),
    _entry(
        _LENIENT + "test_allocations_and_imports_of_nothing",
        "VUID-vkDestroyDevice-device-00378",
        reason="where the driver returns VK_SUCCESS and no memory, the layer counts memory that cannot be freed",
        partial=True,
    ),
    _entry(
        _LENIENT + "test_allocations_of_a_type_that_is_not_there",
        "VUID-vkAllocateMemory-pAllocateInfo-01714",
        reason=_PAST_CHECKS,
    ),
    _entry(
        _LENIENT + "test_more_than_the_heap_has",
        "VUID-vkAllocateMemory-pAllocateInfo-01713",
        reason=_PAST_CHECKS,
    ),
    _entry(
        _LENIENT + "test_more_than_the_heap_has",
        "UNASSIGNED-vkAllocateMemory-maxMemoryAllocationSize",
        reason=_NEWER,
        partial=True,
    ),
    _entry(
        _LENIENT + "test_a_handle_type_that_the_driver_has_never_heard_of",
        "VUID-VkImportMemoryFdInfoKHR-handleType-00669",
        reason=_NEWER,
        partial=True,
    ),
    _entry(
        _LENIENT + "test_exports_of_a_type_that_was_not_asked_for",
        "VUID-VkMemoryGetFdInfoKHR-handleType-00671",
        reason=_NEWER,
        partial=True,
    ),
    _entry(
        _LENIENT + "test_an_fd_of_memory_that_is_not_for_export",
        "VUID-VkMemoryGetFdInfoKHR-handleType-00671",
        reason=_NEWER,
        partial=True,
    ),
    _entry(
        "process/vulkan/test_commands.py::test_what_the_device_is_not_asked_about_is_refused_in_any_mode",
        "VUID-vkCmdCopyBuffer-srcBuffer-00118",
        reason="with check='warn' what only breaks a rule runs; " + _NEWER,
        partial=True,
    ),
)
"""See the module."""


def _of(test: str, entries: Iterable[Expected]) -> list[Expected]:
    name = test.removeprefix("tests/")
    return [entry for entry in entries if name.startswith(entry.test)]


def unexpected(test: str, found: Iterable[str], entries: Iterable[Expected] = EXPECTED) -> list[str]:
    """Return a text of what a test provoked and may not. test: its node id. found: identifiers of messages."""
    allowed = frozenset[str]().union(*(entry.ids for entry in _of(test, entries)))
    return [f"{id} is not expected" for id in sorted(set(found) - allowed - set(OUTDATED))]


def missing(test: str, found: Iterable[str], entries: Iterable[Expected] = EXPECTED) -> list[str]:
    """Return a text of what a test that passed should have provoked and has not."""
    certain = frozenset[str]().union(*(entry.ids for entry in _of(test, entries) if not entry.partial))
    return [
        f"{id} is expected and did not come: remove it from tests/layer/expected.py"
        for id in sorted(certain - set(found))
    ]
