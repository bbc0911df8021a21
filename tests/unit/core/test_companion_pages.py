"""Companion pages: made with a payload, carried by its export, read-only or writable by rights in the importer."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator

import pytest

import extmem
from extmem import vk
from extmem.core import sharing_arrays
from extmem.core.companion_pages import CompanionPages
from extmem.errors import AccessDeniedError, DescriptorError, HandleStateError
from extmem.owning import Uses
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.kinds import PageRole
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer

CONTENTS = b"one table of arrays" * 500
OPENED = """
import extmem
from extmem.sharing.kinds import PageRole
memory = extmem.open("paged", access=extmem.Access.{access})
pages = memory.record.pages
"""


def paged(device: extmem.Device, contents: dict[PageRole, bytes], name: str | None) -> extmem.DeviceMemory:
    with Uses(device) as uses:
        how = sharing_arrays.how(name, extmem.Access.READ_WRITE)
        made = sharing_arrays.allocate(device, uses, 4096, how, array=ArrayInfo((4096,), "uint8", (1,)), pages=contents)
    if name is not None:
        sharing_arrays.publish(made)
    return extmem.DeviceMemory(*made.memory)


@pytest.fixture
def host() -> Iterator[extmem.Device]:
    with extmem.open_device(kind="host") as device:
        yield device


def pages_of(memory: extmem.DeviceMemory) -> CompanionPages:
    pages = memory.record.pages
    assert pages is not None
    return pages


def test_both_pages_reach_another_process(host: extmem.Device, peer: Peer) -> None:
    with paged(host, {PageRole.CONTROL: bytes(64), PageRole.TABLE: CONTENTS}, "paged") as memory:
        assert memory.descriptor.pages == (1, 2)
        peer(OPENED.format(access="READ_WRITE"))
        assert peer(f"pages.read(PageRole.TABLE, 1 << 20)[:{len(CONTENTS)}]") == CONTENTS
        assert peer("pages.is_writable(PageRole.CONTROL), pages.is_writable(PageRole.TABLE)") == (True, False)
        peer("import ctypes; ctypes.memset(pages.map(PageRole.CONTROL).address + 7, 9, 1)")
        assert ctypes.string_at(pages_of(memory).map(PageRole.CONTROL).address, 9) == b"\0" * 7 + b"\x09\0"


def test_a_reader_gets_both_pages_read_only(host: extmem.Device, peer: Peer) -> None:
    with paged(host, {PageRole.CONTROL: bytes(64), PageRole.TABLE: CONTENTS}, "paged") as memory:
        ctypes.memset(pages_of(memory).map(PageRole.CONTROL).address, 3, 1)
        peer(OPENED.format(access="READ"))
        assert peer("pages.is_writable(PageRole.CONTROL), pages.is_writable(PageRole.TABLE)") == (False, False)
        assert peer("import ctypes; ctypes.string_at(pages.map(PageRole.CONTROL).address, 2)") == b"\x03\0"


@pytest.mark.linux_only("sections of Windows have no seals")
def test_nobody_can_write_the_table(host: extmem.Device) -> None:
    with paged(host, {PageRole.CONTROL: bytes(64), PageRole.TABLE: CONTENTS}, None) as memory:
        from extmem.devices.host import system

        table, control = (page.handle for page in reversed(pages_of(memory).exported()))
        with pytest.raises(AccessDeniedError):
            system.map_file(table, 4096, True)
        assert system.map_file(control, 4096, True).writable


@pytest.mark.linux_only("on Windows each import opens the section of the page")
def test_two_imports_map_a_page_once(host: extmem.Device, peer: Peer) -> None:
    peer("import extmem; from tests.unit.core import test_companion_pages as made; from extmem.sharing.kinds import *")
    peer("device = extmem.open_device(kind='host')")
    peer("memory = made.paged(device, {PageRole.CONTROL: bytes(64)}, 'paged')")
    with extmem.open("paged") as first, host.open("paged") as second:
        assert first.record is not second.record
        assert pages_of(first).map(PageRole.CONTROL) is pages_of(second).map(PageRole.CONTROL)


def test_pages_stay_after_the_close_of_another_import(host: extmem.Device) -> None:
    with paged(host, {PageRole.TABLE: CONTENTS}, "paged") as memory:
        first, second = extmem.open("paged"), host.open("paged")
        first.close()
        assert not memory.closed
        assert pages_of(second).read(PageRole.TABLE, 1 << 20)[: len(CONTENTS)] == CONTENTS
        second.close()


def test_a_page_that_is_larger_than_the_limit_is_not_read(host: extmem.Device) -> None:
    with paged(host, {PageRole.TABLE: CONTENTS}, None) as memory:
        with pytest.raises(DescriptorError, match="at most 4096 are read"):
            pages_of(memory).read(PageRole.TABLE, 4096)
        assert pages_of(memory).read(PageRole.TABLE, 12288)


def test_closed_memory_has_no_pages(host: extmem.Device) -> None:
    memory = paged(host, {PageRole.TABLE: CONTENTS}, None)
    pages = pages_of(memory)
    memory.close()
    with pytest.raises(HandleStateError, match="no page TABLE"):
        pages.size(PageRole.TABLE)


@pytest.mark.linux_only("Windows has no fds of payloads")
def test_an_fd_carries_no_pages(host: extmem.Device) -> None:
    with paged(host, {PageRole.TABLE: CONTENTS}, None) as memory:
        handle = memory.export_handle(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)
        with extmem.open(handle) as opened:  # type: ignore[arg-type]
            assert opened.descriptor.pages == (2, 1)
            assert opened.record.pages is None


@pytest.mark.linux_only("fds are counted")
def test_the_pages_of_memory_that_is_not_allocated_are_closed(name: str) -> None:
    """Also while the program has the exception, whose traceback refers to what was there."""
    fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        device.allocate(64, name=name).close()
        before = len(os.listdir("/proc/self/fd"))
        for command in (lambda: device.allocate(64, name=name), lambda: device.allocate((4, 4), "int16", name=name)):
            fake.fail(1, command="vkAllocateMemory")
            with pytest.raises(extmem.OutOfMemoryError) as caught:
                command()
            assert caught.tb is not None and len(os.listdir("/proc/self/fd")) == before
        with device.allocate(64, name=name):
            assert len(os.listdir("/proc/self/fd")) > before
