"""The descriptor of semaphores and fences: what it says travels, and values that cannot be true together are refused.

Bytes that lie, and bytes of memory.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings

from extmem.errors import DescriptorError
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.descriptor.sync import SyncDescriptor
from extmem.sharing.kinds import ObjectKind
from extmem.testing.strategies import sync_descriptors

TIMELINE: dict[str, Any] = {
    "object_kind": ObjectKind.SEMAPHORE,
    "handle_types": 0x3,
    "timeline": True,
    "initial_value": (1 << 64) - 1,
    "host": True,
    "device_uuid": b"d" * 16,
    "owner_pid": 77,
}


def test_a_descriptor_survives_its_journey() -> None:
    for values in (TIMELINE, {"object_kind": 3, "handle_types": 0x9, "luid": b"l" * 8}):
        described = SyncDescriptor(**values)
        data = described.encode()
        assert SyncDescriptor.parse(data) == described and len(data) < 100
    assert SyncDescriptor(**TIMELINE).noun == "a timeline semaphore"


@settings(max_examples=60, deadline=None)
@given(sync_descriptors())
def test_any_descriptor_survives_its_journey(described: SyncDescriptor) -> None:
    data = described.encode()
    assert SyncDescriptor.parse(data) == described and len(data) < 200


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"object_kind": 1}, "object_kind is 1"),
        ({"object_kind": 3, "initial_value": 0}, "only semaphores are timelines"),
        ({"timeline": False}, "initial_value is 18446744073709551615 for a binary semaphore"),
        ({"initial_value": 1 << 64}, "initial_value is"),
        ({"handle_types": -1}, "handle_types is -1"),
        ({"flags": 1 << 32}, "flags is"),
        ({"device_uuid": b"short"}, "device_uuid has 5 bytes"),
    ],
)
def test_values_that_cannot_be_true_together_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(DescriptorError, match=problem):
        SyncDescriptor(**TIMELINE | changes)


@pytest.mark.parametrize(
    ("index", "value", "problem"),
    [
        (0, "big", "Expected `int`, got `str` - at `handle_types`"),
        (1, 1, "at `timeline`"),
        (3, -1, "initial_value is -1"),
        (4, None, "at `host`"),
    ],
)
def test_bytes_that_lie_name_the_field(index: int, value: object, problem: str) -> None:
    elements = msgspec.msgpack.decode(SyncDescriptor(**TIMELINE).encode())
    elements[2][index] = value
    with pytest.raises(DescriptorError, match=problem):
        SyncDescriptor.parse(msgspec.msgpack.encode(elements))


def test_memory_and_synchronization_are_told_apart() -> None:
    memory = Descriptor(handle_types=1, allocation_size=4096).encode()
    sync = SyncDescriptor(**TIMELINE).encode()
    with pytest.raises(DescriptorError, match="of memory .*, and a semaphore or a fence is needed; .*extmem.open"):
        SyncDescriptor.parse(memory)
    with pytest.raises(DescriptorError, match="of a semaphore .*, and memory is needed; .*open_timeline"):
        Descriptor.parse(sync)
    for data in (b"", sync[:-1], sync + b"\0", b"\x93\x05\x00\x00", b"\xc1" * 40):
        with pytest.raises(DescriptorError):
            SyncDescriptor.parse(data)


def test_a_wrong_type_is_refused_when_it_is_encoded() -> None:
    with pytest.raises(DescriptorError, match="at `host`"):
        SyncDescriptor(**TIMELINE | {"host": 1}).encode()
