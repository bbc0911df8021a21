"""The leak counter reports every kind of leak, on success and on failure, and nothing where there is none."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

import extmem
from extmem.api import Device
from extmem.devices.host.backend import HostBackend
from extmem.devices.sync import FenceSpec
from extmem.testing.children import Peer
from extmem.testing.leaks import LeakError, no_leaks

QUICK = 0.05


def test_nothing_is_reported_where_nothing_leaks(device: Device, name: str) -> None:
    with no_leaks(deadline=QUICK), device.allocate(4096, name=name) as memory, memory.export_handle():
        assert memory.numpy().sum() == 0


def test_a_leaked_descriptor_is_named() -> None:
    with pytest.raises(LeakError, match=r"fd: File" if sys.platform == "win32" else r"/dev/null"):
        with no_leaks(deadline=QUICK):
            fd = os.open(os.devnull, os.O_RDONLY)
    os.close(fd)


@pytest.mark.linux_only("an eventfd and its page are Linux's")
def test_a_leaked_fence_is_named_with_its_event_and_its_page() -> None:
    kept = HostBackend().create_fence(FenceSpec())  # what is imported for the first one is no leak
    with pytest.raises(LeakError) as error:
        with no_leaks(objects=False, deadline=QUICK):
            fence = HostBackend().create_fence(FenceSpec())
            assert fence.pages
    for part in ("anon_inode:[eventfd]", "memfd:", "mapping of memory file"):
        assert part in str(error.value)
    fence.close()
    kept.close()


def test_a_leak_is_reported_on_failure_too() -> None:
    with pytest.raises(LeakError) as error:
        with no_leaks(deadline=QUICK):
            fd = os.open(os.devnull, os.O_RDONLY)
            raise KeyError("the block's own failure")
    assert isinstance(error.value.__cause__, KeyError)
    os.close(fd)


def test_a_failure_without_leak_comes_through_as_it_is() -> None:
    with pytest.raises(KeyError):
        with no_leaks(deadline=QUICK):
            raise KeyError("no leak")


def test_leaked_memory_is_named_with_its_bytes_and_holders(device: Device, name: str) -> None:
    with pytest.raises(LeakError) as error:
        with no_leaks(deadline=QUICK):
            memory = device.allocate(8192, name=name)
    message = str(error.value)
    assert (
        ("Section" if sys.platform == "win32" else "memfd:") in message
        and name in message
        and "memory objects" in message
        and "more bytes" in message
    )
    memory.close()


@pytest.mark.linux_only("drivers of Linux allocate from memory files that grow")
def test_a_file_that_grows_is_no_leak_and_a_new_one_is() -> None:
    pool = os.memfd_create("allocation fd", os.MFD_CLOEXEC)
    os.truncate(pool, 4096)
    with no_leaks(deadline=QUICK):
        os.truncate(pool, 1 << 20)
    with pytest.raises(LeakError, match="4096 more bytes of memory files") as error:
        with no_leaks(deadline=QUICK):
            os.truncate(pool, 1 << 21)
            other = os.memfd_create("allocation fd", os.MFD_CLOEXEC)
            os.truncate(other, 4096)
    assert "memfd:allocation fd" in str(error.value)
    os.close(pool)
    os.close(other)


@pytest.mark.linux_only("a layer of Vulkan writes its log there")
def test_what_others_open_in_this_process_is_not_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setattr("extmem.testing.leaks.NOT_OURS", {str(log)})
    with no_leaks(deadline=QUICK):
        fd = os.open(log, os.O_RDONLY)
    os.close(fd)


def test_a_leaked_handle_is_named(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory:
        with pytest.raises(LeakError, match="NT handles"):
            with no_leaks(deadline=QUICK):
                handle = memory.export_handle()
        handle.close()


@pytest.mark.linux_only("memory files are Linux's; below is the same with a section")
def test_a_leaked_mapping_is_named() -> None:
    fd = os.memfd_create("payload")
    os.ftruncate(fd, 4096)
    with pytest.raises(LeakError, match="mapping of memory file"):
        with no_leaks(deadline=QUICK):
            mapping = mmap.mmap(fd, 4096)
    mapping.close()
    os.close(fd)


@pytest.mark.windows_only("sections are Windows's; above is the same with a memory file")
def test_a_leaked_view_is_named() -> None:
    with pytest.raises(LeakError, match="view of a section, 4096 bytes") as error:
        with no_leaks(deadline=QUICK):
            mapping = mmap.mmap(-1, 4096)
    assert "Section, 4096 bytes" in str(error.value)
    mapping.close()


def test_what_another_process_leaks_counts_where_asked(peer: Peer, name: str) -> None:
    with no_leaks(deadline=QUICK):
        peer("memory = extmem.open_device().allocate(64, name=name)", name=name)
    peer("memory.close()")
    with pytest.raises(LeakError, match=str(peer.pid)):
        with no_leaks(everybody=True, deadline=QUICK):
            peer("memory = extmem.open_device().allocate(64, name=name)", name=name)
    assert extmem.open(name).close() is None
