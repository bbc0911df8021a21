"""A host payload on the Vulkan device: its own pages. And a Vulkan payload, which no other device imports."""

from __future__ import annotations

import os
import stat

import pytest

import extmem
from extmem import raw
from extmem.api import Device
from extmem.core.shared_devices import fresh_devices
from extmem.devices.host import HAS_FDS
from extmem.errors import DescriptorError, DriverError, RuleViolation, UnsupportedError
from extmem.testing.children import Peer
from extmem.testing.leaks import memory_file_bytes
from tests.behaviours.steps import FD, KMT, W32, import_fd, import_win32


def test_it_is_opened_without_a_copy_and_both_see_each_others_writes(host: Device, device: Device, name: str) -> None:
    with host.allocate((25, 200), "uint8", name=name) as memory:
        memory.map()[:4] = b"host"
        before = memory_file_bytes()
        with device.open(name) as other:
            # On Windows each import has a handle and a view of its own, which are counted for each.
            assert memory_file_bytes() == before or not HAS_FDS
            assert other.device is device and other.size == 5000 and other.read().shape == (25, 200)
            assert other.read().tobytes()[:4] == b"host"
            other.write(b"vulkan", offset=4990)
            assert bytes(memory.map()[4990:4996]) == b"vulkan"
            other.map()[0:4] = b"both"
            assert memory.read().tobytes()[:4] == b"both"
            memory.fill(9)
            assert set(other.read().tobytes()) == {9}
            other.fill(8)
        assert set(memory.read().tobytes()) == {8}


@pytest.mark.parametrize("size", [1, 4096, 4097, 1 << 20])
def test_any_size_will_do(host: Device, device: Device, name: str, size: int) -> None:
    with host.allocate(size, name=name) as memory, device.open(name) as other:
        other.fill(1)
        other.write(b"e", offset=size - 1)
        assert bytes(memory.map()) == b"\1" * (size - 1) + b"e"


def test_from_another_process(host: Device, peer: Peer, name: str) -> None:
    peer("device = extmem.open_device(kind='vulkan')")
    with host.allocate(64, name=name) as memory:
        memory.write(b"far")
        assert peer("other = device.open(name)\nother.read().tobytes()[:3]", name=name) == b"far"
        peer("other.write(b'off')\nNone")
        assert memory.read().tobytes()[:3] == b"off"
    assert peer("other.read().tobytes()[:3]") == b"off", "it keeps the payload"
    peer("other.close()\ndevice.close()")


def test_by_nt_handle_and_kmt_number(host: Device, device: Device) -> None:
    for kind in (W32, KMT):
        with host.allocate(64, handle_types=kind) as memory, memory.export_handle(kind) as handle:
            with device.open(handle) as other:
                other.write(b"handle")
            assert memory.read().tobytes()[:6] == b"handle"


def test_without_a_device_it_is_opened_where_it_is_from(host: Device, device: Device, name: str) -> None:
    with host.allocate(64, name=name), extmem.open(name) as other:
        assert other.device.kind == "host"


def test_a_read_only_one_is_refused_and_says_where_to_open_it(host: Device, device: Device, name: str) -> None:
    with host.allocate(64, name=name, access=extmem.Access.READ) as memory:
        memory.write(b"only")
        with pytest.raises(UnsupportedError, match="read-only here; open it on the host device, or ask its owner"):
            device.open(name)
        with host.open(name) as other:
            assert other.read_only and other.read().tobytes()[:4] == b"only"


def test_opening_it_twice_gives_the_same(host: Device, device: Device, name: str) -> None:
    with host.allocate(64, name=name), device.open(name) as first, device.open(name) as second:
        assert first.record is second.record


def test_it_is_no_opaque_payload_of_the_driver(host: Device, device: Device) -> None:
    """The specification's calls refuse it as another device's: only the high-level API imports host memory."""
    with host.allocate(4096) as memory:
        with memory.export_handle(W32) as handle, pytest.raises(RuleViolation) as error:
            import_win32(device, handle, size=memory.allocation_size)
        assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-00659" in error.value.vuids
        if not HAS_FDS:
            return
        with memory.export_handle(FD) as fd:
            with pytest.raises(RuleViolation, match="is /memfd:extmem"):
                import_fd(device, fd, size=memory.allocation_size)
            with device.open(fd.duplicate()) as other:
                assert other.size == 4096 and other.device is device
            with host.open(fd) as other:
                assert other.size == 4096


def is_sealed(fd: int) -> bool:
    """Return whether a driver's payload is a memory file that can neither shrink nor grow."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return False
    import fcntl  # only Linux has it

    sizes = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    return fcntl.fcntl(fd, fcntl.F_GET_SEALS) & sizes == sizes


def test_a_vulkan_payload_on_the_host_device_names_both_devices(host: Device, device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory, memory.export_handle(W32) as handle:
        for source in (name, handle):
            with pytest.raises(RuleViolation) as error:
                host.open(source)  # type: ignore[arg-type]  # a name or an NT handle
            assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-00659" in error.value.vuids
            message = str(error.value).replace("-", "")
            assert host.uuid.hex() in message and device.uuid.hex() in message and host.name in str(error.value)
        if not HAS_FDS:
            extmem.open(name).close()
            return
        with memory.export_handle(FD) as fd, extmem.raw.fd_handle(os.dup(int(fd))) as bare:
            if is_sealed(int(fd)):
                with pytest.raises(RuleViolation) as error:
                    host.open(fd)
                assert "VUID-VkImportMemoryFdInfoKHR-fd-00668" in error.value.vuids
                with pytest.raises(DescriptorError, match="carries no description"):
                    host.open(bare)
            else:  # drivers of GPUs export no memory files, SwiftShader unsealed ones: that is checked first
                for handle in (fd, bare):
                    with pytest.raises(DriverError, match="sealed memory file|seals 0x1"):
                        host.open(handle)
            assert not fd.closed and not bare.closed
            device.open(fd).close()
        extmem.open(name).close()


@pytest.mark.linux_only("file descriptors carry memory on Linux alone")
def test_a_bare_file_of_the_hosts_opens_there_whatever_was_opened_before(device: Device, name: str) -> None:
    with fresh_devices(), extmem.open_device(kind="host") as host:
        with device.allocate(4096, name=name), extmem.open(name) as first:
            assert first.device.kind == "vulkan"
            with host.allocate(64, handle_types=int(FD)) as memory, memory.export_handle(FD) as fd:
                memory.write(b"bare")
                with extmem.open(raw.fd_handle(fd.duplicate().take())) as opened:
                    assert opened.device.kind == "host" and opened.read_bytes(0, 4) == b"bare"
