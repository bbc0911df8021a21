"""The description of a channel's control page, and that it is not taken for memory, nor the reverse."""

from __future__ import annotations

import pytest

from extmem.errors import DescriptorError
from extmem.sharing.descriptor import Descriptor
from extmem.sharing.descriptor.channel import ChannelDescriptor

ID = bytes(range(16))


def test_a_description_is_read_as_it_was_written() -> None:
    said = ChannelDescriptor(identity=ID, owner_pid=7, owner_start_time=9, share=1)
    assert ChannelDescriptor.parse(said.encode()) == said
    lock = ChannelDescriptor(identity=ID, lock=True)
    assert ChannelDescriptor.parse(lock.encode()).lock


def test_memory_is_no_channel_and_a_channel_is_no_memory() -> None:
    with pytest.raises(DescriptorError, match=r"of a channel \(kind 4\).*extmem.open_channel"):
        Descriptor.parse(ChannelDescriptor(identity=ID).encode())
    with pytest.raises(DescriptorError, match=r"of memory \(kind 1\)"):
        ChannelDescriptor.parse(Descriptor(handle_types=1, allocation_size=4096).encode())


@pytest.mark.parametrize("identity", [b"", ID[:15], ID + b"x"])
def test_an_identity_has_16_bytes(identity: bytes) -> None:
    with pytest.raises(DescriptorError, match=f"{len(identity)} bytes"):
        ChannelDescriptor(identity=identity)
