"""Channels on Windows: the rights of a reader's handles, names of other sessions, what a channel leaves."""

from __future__ import annotations

import pytest

import extmem
from extmem.errors import UnsupportedError
from extmem.testing.children import Peer

RIGHTS = """
import extmem
from extmem.handles._win32 import calls, sections
channel = extmem.open_channel(name)
frame = channel.read(timeout=5)
allowed = []
def refused(what, call, *arguments):
    try:
        call(*arguments)
    except (calls.StatusError, extmem.AccessDeniedError, ValueError, TypeError):
        return
    allowed.append(what)
page = channel.control._imported.payload.fd
slot = frame.memory.record.allocation.fd
refused("map the page", sections.map_view, page, 4096, True)
refused("map a slot", sections.map_view, slot, 4096, True)
refused("signal", channel.frames_page.raise_to, 100)
refused("write into an array", frame.numpy().fill, 1)
refused("write into the page", channel.control.numbers.__setitem__, 0, 9)
allowed
"""
ROOT = """
import extmem
from extmem.handles._win32 import directories
from extmem.handles._win32.tables import HANDLE, ntdll
channel = extmem.open_channel(name)
made = (HANDLE * 1)()
status = ntdll.NtCreateMutant(made, 1, directories.inside(channel.control.locks.owner.root, "x"), False)
status & 0xFFFF_FFFF
"""


def test_the_kernel_keeps_the_handles_of_a_reader_from_writing(peer: Peer, name: str) -> None:
    with extmem.create_channel(name, 4096) as writer:
        writer.put(bytes(4096))
        assert peer(RIGHTS, name=name) == []
        assert writer.count == 1


@pytest.mark.wine_differs("B17: Wine lets every handle of a directory create objects in it")
def test_a_reader_creates_nothing_beside_the_lock_of_the_writer(peer: Peer, name: str) -> None:
    with extmem.create_channel(name, 8):
        assert peer(ROOT, name=name) == 0xC000_0022


@pytest.mark.parametrize("directory", ["Global\\", "Session\\0\\"])
def test_a_name_of_another_session_is_refused(name: str, directory: str) -> None:
    with pytest.raises(UnsupportedError, match="without Global"):
        extmem.create_channel(directory + name, 8)


def test_another_user_may_read_by_security_and_this_one_writes(name: str) -> None:
    with extmem.create_channel(name, 8, security="D:(A;;GR;;;WD)") as writer, extmem.open_channel(name) as reader:
        writer.put(bytes(8))
        assert reader.read(timeout=5).number == 1
        writer.reconfigure(16)
        writer.put(bytes(16))
        assert reader.read(timeout=5).shape == (16,)
