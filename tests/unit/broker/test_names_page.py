"""The page that counts replacements: readable by all, writable by none of them."""

from __future__ import annotations

import mmap
import os
import struct

import pytest

from extmem.broker.names_page import NamesPage


def count(fd: int) -> int:
    return int(struct.unpack("=Q", os.pread(fd, 8, 0))[0])


def test_readers_see_the_count_and_cannot_write() -> None:
    before = len(os.listdir("/proc/self/fd"))
    page = NamesPage()
    fd = page.read_only_fd()
    first = count(fd)
    try:
        page.add_one()
        assert count(fd) == first + 1
        with pytest.raises(PermissionError):
            mmap.mmap(fd, mmap.PAGESIZE)
        with pytest.raises(OSError):
            os.ftruncate(fd, 0)
        page.close()
        page.close()
        assert count(fd) == first + 1
    finally:
        os.close(fd)
    assert len(os.listdir("/proc/self/fd")) == before
