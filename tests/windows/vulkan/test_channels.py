"""Channels on Windows have frames in memory of the host alone."""

from __future__ import annotations

import pytest

import extmem
from extmem.api import Device
from extmem.errors import UnsupportedError


def test_frames_of_a_gpu_are_refused(device: Device, name: str) -> None:
    with pytest.raises(UnsupportedError, match="memory of the host on Windows"):
        extmem.create_channel(name, 8, device=device)
    with extmem.create_channel(name, 8) as writer:
        with pytest.raises(UnsupportedError, match="omit device="):
            extmem.open_channel(name, device=device)
        with extmem.open_channel(name) as reader:
            writer.put(bytes(8))
            assert reader.read(timeout=5).number == 1
