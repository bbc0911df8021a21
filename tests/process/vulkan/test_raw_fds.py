"""The driver's memory by a bare fd over a socket: only the fd arrives, without a description."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest

import extmem
from extmem import raw
from extmem.api import Device, DeviceMemory
from extmem.errors import DescriptorError, RuleViolation
from extmem.sharing.descriptor import Descriptor
from extmem.testing.children import Peer
from tests.behaviours.steps import FD, PEER, import_fd
from tests.process.vulkan.conftest import ENVIRONMENT


@contextlib.contextmanager
def sent(memory: DeviceMemory, count: int = 1) -> Iterator[Peer]:
    """Another process that has received the memory's fd, `count` times, as `fds`."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with here, there, Peer(env=ENVIRONMENT, pass_fds=[there.fileno()]) as peer, contextlib.ExitStack() as stack:
        handles = [stack.enter_context(memory.export_handle(FD)) for _ in range(count)]
        socket.send_fds(here, [b"fd"], [int(handle) for handle in handles])
        peer(PEER + "\nimport socket\nfrom extmem import raw")
        peer(f"_, fds, _, _ = socket.recv_fds(socket.socket(fileno={there.fileno()}), 2, {count})")
        yield peer
        peer("device.close()")
        peer.leave()


def test_it_is_imported_in_another_process_with_the_exporters_size_and_type(device: Device) -> None:
    with device.allocate(10_000) as memory:
        memory.write(b"bare")
        with sent(memory) as peer:
            size, index = memory.allocation_size, memory.memory_type_index
            peer("memory = import_fd(device, fds[0], size=size, index=index)", size=size, index=index)
            # first of all, because a file that the driver opens at its first use may get the number
            assert peer.fails("os.fstat(fds[0])").errno == 9, "a successful import consumes the fd"
            assert peer("get(memory), memory.read().tobytes()[:4]") == (b"bare", b"bare")
            peer("memory.write(b'back')")
            peer("memory.close()")
        assert memory.read().tobytes()[:4] == b"back"


def test_a_size_that_it_does_not_have_is_refused_there_and_the_fd_stays(device: Device) -> None:
    with device.allocate(65_536) as memory, sent(memory) as peer:
        size = memory.allocation_size
        for wrong in (size * 2, size * 1000, 0):
            error = peer.fails("import_fd(device, fds[0], size=size)", size=wrong)
            assert error.is_a("RuleViolation") or error.is_a("DriverError"), error
            peer("os.fstat(fds[0])\nNone")
        peer("import_fd(device, fds[0], size=size).close()", size=size)


def test_without_a_description_the_high_level_api_asks_for_one(device: Device) -> None:
    with device.allocate(1000) as memory, sent(memory, 2) as peer:
        memory.write(b"told")
        peer("first, second = map(raw.fd_handle, fds)")
        error = peer.fails("device.open(first)")
        assert error.is_a(DescriptorError) and "extmem.raw.import_payload" in error.message
        peer("said = extmem.Descriptor.parse(data)", data=memory.descriptor.encode())
        peer("memory = raw.import_payload(device, second, said)")
        assert peer("memory.size, memory.read().tobytes()[:4], second.closed, first.closed") == (
            1000,
            b"told",
            True,
            False,
        )
        peer("memory.close()\nfirst.close()")


def stated(device: Device, memory: DeviceMemory, **changes: object) -> Descriptor:
    """Return the memory's descriptor with other facts in it."""
    import msgspec

    return msgspec.structs.replace(memory.descriptor, **changes)


@pytest.mark.parametrize("field", ["device_uuid", "driver_uuid"])
def test_a_payload_of_another_device_is_refused_and_both_are_named(device: Device, field: str) -> None:
    """A forged description represents a payload of another GPU, because there is only one."""
    other = bytes(range(16))
    with device.allocate(4096) as memory, memory.export_handle(FD) as handle:
        with pytest.raises(RuleViolation) as error:
            raw.import_payload(device, handle, stated(device, memory, **{field: other}))
        rule = "00668" if field == "device_uuid" else "01746"
        assert f"VUID-VkImportMemoryFdInfoKHR-fd-{rule}" in error.value.vuids
        said = str(error.value).replace("-", "")
        own = device.identity.device_uuid if field == "device_uuid" else device.identity.driver_uuid
        assert other.hex() in said and own.hex() in said
        assert not handle.closed
        raw.import_payload(device, handle, memory.descriptor).close()
        assert handle.closed


def test_a_named_payload_of_a_device_that_is_not_here_says_which_are(device: Device, name: str) -> None:
    """A payload of another machine, or of another boot: published with a descriptor that states so."""
    from extmem.manager import manager
    from extmem.objects import Share

    with device.allocate(4096) as memory, memory.export_handle(FD) as handle:
        elsewhere = stated(device, memory, device_uuid=b"another machine!")
        exported = manager().export(
            (int(handle),),
            elsewhere.encode(),
            share=Share.NT,
            name=name,
            access=int(extmem.Access.READ_WRITE),
            sddl=None,
            inherit=False,
            backing=device.backend.payload_backing,
            identity=memory.record.allocation.stated_identity,
        )
        with extmem.open(name) as opened:  # the device is looked for when something needs it
            for _ in range(2):
                with pytest.raises(extmem.UnsupportedError) as error:
                    opened.read_bytes()
        assert b"another machine!".hex() in str(error.value) and device.uuid.hex() in str(error.value)
        with pytest.raises(RuleViolation) as broken:
            device.open(name)
        assert "VUID-VkImportMemoryWin32HandleInfoKHR-handle-00659" in broken.value.vuids
        assert b"another machine!".hex() in str(broken.value).replace("-", "")
        manager().release(exported.number)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"allocation_size": 1 << 30, "payload_size": 4096}, "tried on a device|are to be imported from it|1073741824"),
        ({"memory_type_index": 31}, "memory_type_index"),
    ],
)
def test_a_description_that_lies_is_found_out(device: Device, changes: dict[str, int], words: str) -> None:
    with device.allocate(4096) as memory, memory.export_handle(FD) as handle:
        with raw.fd_handle(os.dup(int(handle))) as bare:  # as from another program
            with pytest.raises((RuleViolation, extmem.DriverError), match=words):
                raw.import_payload(device, bare, stated(device, memory, **changes))
            assert not bare.closed
            raw.import_payload(device, bare, memory.descriptor).close()


def test_an_int_is_as_good_as_a_handle(device: Device) -> None:
    with device.allocate(4096) as memory:
        fd = memory.export_handle(FD).take()
        with import_fd(device, fd, size=memory.allocation_size, index=memory.memory_type_index) as other:
            other.write(b"int")
            assert memory.read().tobytes()[:3] == b"int"
        with pytest.raises(RuleViolation) as error:
            import_fd(device, fd, size=memory.allocation_size)
        assert "VUID-VkImportMemoryFdInfoKHR-handleType-00670" in error.value.vuids
