"""Ends of channels for `extmem bench channel`: what a program writes for one hop, by the public calls."""

from __future__ import annotations

import struct
import sys
from collections.abc import AsyncIterator
from typing import Any

import extmem

if sys.platform != "linux":
    raise ImportError("this benchmark measures channels on Linux")

from extmem.cli._bench.channel_peers import PEERS, UNREAD, Inherited, Place

__all__ = ["AWAITED", "CHANNEL", "CHANNEL_READ", "WAYS", "ChannelEnd"]

CHANNEL = "a channel"
CHANNEL_READ = "a channel, written and read"
AWAITED = "a channel, async for"

PATIENCE = 30.0
_NUMBER = struct.Struct("<Q")


class ChannelEnd:
    """An end of two channels, one for each direction. It does not look at frames."""

    def __init__(self, place: Place, inherited: Inherited) -> None:
        out, into = ("there", "back") if place.first else ("back", "there")
        self._out = extmem.create_channel(f"{place.label} {out}", (place.size,), "uint8", slots=4)
        self._into = extmem.open_channel(f"{place.label} {into}", timeout=PATIENCE)

    def send(self, number: int) -> None:
        """Send a frame."""
        with self._out.write():
            pass

    def receive(self) -> int:
        """Wait for the next frame."""
        with self._into.read():
            return UNREAD

    async def received(self) -> AsyncIterator[int]:
        """Yield for each frame, by `async for`."""
        async for _ in self._into:
            yield UNREAD

    def close(self) -> None:
        """Close both channels."""
        self._into.close()
        self._out.close()


class _ChannelRead(ChannelEnd):
    def send(self, number: int) -> None:
        with self._out.write() as frame:
            _NUMBER.pack_into(frame.view(), 0, number)

    def receive(self) -> int:
        with self._into.read() as frame:
            return int(_NUMBER.unpack_from(frame.view())[0])


WAYS: dict[str, Any] = {CHANNEL: ChannelEnd, CHANNEL_READ: _ChannelRead, AWAITED: ChannelEnd, **PEERS}
"""What makes the end of each way, for channels and for the libraries that they are compared with."""
