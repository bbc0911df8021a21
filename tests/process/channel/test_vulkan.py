"""Channels whose slots are memory of the installed Vulkan driver, between processes: contents, and a killed writer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import WriterGoneError
from extmem.api import Device
from extmem.testing.children import Peer

pytestmark = [
    pytest.mark.linux_only("the drivers of the Windows test bed share no memory with another process"),
    pytest.mark.slow("each test starts a process that opens a Vulkan device"),
]

WRITER = """
import extmem
device = extmem.open_device(kind="vulkan")
writer = extmem.create_channel(name, (4, 8), "uint8", device=device, slots=3)

def put(byte):
    with writer.write() as frame, device.commands() as commands, frame.on(commands) as buffer:
        commands.fill_buffer(buffer, 0x01010101 * byte)
    return frame.number

put(1)
"""


@pytest.fixture
def vulkan(vulkan_device: Any) -> Device:
    device: Device = vulkan_device
    return device


@pytest.fixture
def peer(name: str, vulkan: Device) -> Iterator[Peer]:
    """A process that has published one frame."""
    with Peer() as made:
        assert made(WRITER, name=name) == 1
        yield made


def test_the_queue_of_a_reader(vulkan: Device, peer: Peer, name: str) -> None:
    with extmem.open_channel(name, device=vulkan, every=True) as reader, vulkan.allocate(32) as copy:
        for byte in range(1, 9):
            with vulkan.commands() as commands, reader.read(timeout=20).on(commands) as buffer:
                commands.acquire(copy.buffer())
                commands.copy_buffer(buffer, copy.buffer())
                commands.release(copy.buffer())
            assert set(copy.read_bytes()) == {byte}
            assert peer(f"put({byte + 1})") == byte + 1
        assert reader.info.device == vulkan.name
        peer("writer.close()\ndevice.close()\nNone")
        assert [bytes(frame.view())[:1] for frame in reader] == [bytes([9])]


def test_the_host_of_a_reader_without_a_device_of_its_own(peer: Peer, name: str) -> None:
    with extmem.open_channel(name) as reader:
        frame = reader.read(timeout=20)
        assert frame.numpy().shape == (4, 8) and (frame.numpy() == 1).all()
        peer.kill()
        with pytest.raises(WriterGoneError):
            reader.read(timeout=20)
        assert (frame.numpy() == 1).all() if not frame.released else True


def test_a_killed_writer_is_replaced(vulkan: Device, peer: Peer, name: str) -> None:
    with extmem.open_channel(name, device=vulkan, reconnect=True) as reader:
        reader.read(timeout=20).wait(20)
        peer.kill()
        with Peer() as other:
            assert other(WRITER, name=name) == 2
            frame = reader.read(timeout=20)
            assert frame.number == 2 and set(frame.tobytes()) == {1}
