"""Machines that lack something: a device, a newer loader, an extension, a queue; lost devices; memory not coherent."""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import extmem
from extmem import vk
from extmem.api import Device, DeviceMemory
from extmem.devices.host import HAS_FDS
from extmem.handles import FdHandle, NtHandle
from extmem.testing import fake_vulkan
from tests.behaviours.steps import FD, KMT, SIZE, W32, by_name, export, fd, import_any, import_win32, kmt, nt

_Result = vk.Result
TYPES = W32 | FD if HAS_FDS else W32
"""The handle types that can be exported together on this system."""
OTHER = dataclasses.replace(
    fake_vulkan.DISCRETE, name="Fake Other GPU", device_uuid=b"fake gpu 0000009", driver_uuid=b"fake driver 0002"
)


@contextlib.contextmanager
def machine(*gpus: fake_vulkan.Gpu, **options: Any) -> Iterator[fake_vulkan.FakeVulkan]:
    """A fake that must have no objects and no misuses at the end."""
    fake = fake_vulkan.FakeVulkan(list(gpus), **options)
    with fake_vulkan.installed(fake):
        yield fake
    assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    assert not fake.alive()


def opened(**options: Any) -> Device:
    return extmem.open_device(kind="vulkan", **options)


def another(device: Device, memory: DeviceMemory) -> FdHandle | NtHandle:
    """Return another handle of memory that was exported already: an fd where the system has them."""
    made = memory.export_handle(FD if HAS_FDS else W32)
    assert isinstance(made, (FdHandle, NtHandle))
    return made


def why_not() -> str:
    with pytest.raises(extmem.UnsupportedError) as caught:
        opened()
    return str(caught.value)


# No device.


def test_no_physical_device_is_reported() -> None:
    with machine():
        assert "the loader finds no device of Vulkan 1.1 or later; install a driver" in why_not()
        # The other devices can still be opened.
        with extmem.open_device(kind="host") as host:
            assert host.kind == "host"


def test_no_driver_is_reported() -> None:
    with machine(fake_vulkan.DISCRETE) as fake:
        fake.fail(result=_Result.ERROR_INCOMPATIBLE_DRIVER, command="vkCreateInstance")
        assert "no driver is installed for this loader" in why_not()
    with machine(fake_vulkan.DISCRETE), opened() as device:
        assert device.name == "Fake Discrete GPU"


def test_a_loader_of_vulkan_1_0_is_reported() -> None:
    with machine(fake_vulkan.DISCRETE, missing=frozenset({"vkEnumerateInstanceVersion"})):
        assert "the Vulkan loader here is for Vulkan 1.0" in why_not()


def test_a_device_of_vulkan_1_0_is_left_out() -> None:
    old = dataclasses.replace(OTHER, api_version=(1, 0))
    with machine(old, fake_vulkan.DISCRETE):
        vulkan = [who.device_name for who in extmem.enumerate_devices() if who.driver_name == "extmem fake driver"]
        assert vulkan == ["Fake Discrete GPU"]


@pytest.mark.parametrize("result", [_Result.ERROR_OUT_OF_HOST_MEMORY, _Result.ERROR_INITIALIZATION_FAILED])
@pytest.mark.parametrize(
    "command", ["vkCreateInstance", "vkEnumeratePhysicalDevices", "vkEnumerateDeviceExtensionProperties"]
)
def test_an_instance_that_fails_is_reported_and_leaves_nothing(command: str, result: vk.Result) -> None:
    with machine(fake_vulkan.DISCRETE) as fake:
        fake.fail(result=result, command=command)
        reason = why_not()
        assert command in reason and f"VK_{result.name}" in reason


def test_no_queue_that_copies_is_reported() -> None:
    sparse = int(vk.QueueFlagBits.SPARSE_BINDING)
    useless = (fake_vulkan.Family(sparse), fake_vulkan.Family(count=0))
    with machine(dataclasses.replace(OTHER, families=useless)):
        assert "Fake Other GPU has no queue that can copy" in why_not()
    able = (*useless, fake_vulkan.Family(int(vk.QueueFlagBits.TRANSFER)))
    with machine(dataclasses.replace(OTHER, families=able)), opened() as device, device.allocate(SIZE) as memory:
        memory.fill(5)
        assert memory.read()[-1] == 5


# The device lacks something.


def test_a_driver_that_shares_nothing_allocates_all_the_same(name: str) -> None:
    lacking = dataclasses.replace(OTHER, extensions=("VK_EXT_external_memory_host",))
    with machine(lacking), opened() as device:
        for kind in (FD, W32, KMT):
            answer = device.get_physical_device_external_buffer_properties(
                vk.PhysicalDeviceExternalBufferInfo(usage=vk.BufferUsageFlagBits.TRANSFER_SRC, handle_type=kind)
            )
            assert not answer.external_memory_properties.external_memory_features
            with pytest.raises(extmem.RuleViolation):
                export(device, types=kind)
        lacking_name = fake_vulkan.SHARING_EXTENSION
        for asked in ({"name": name}, {"handle_types": int(W32)}, {"inherit": True}, {"security": "D:(A;;GA;;;OW)"}):
            with pytest.raises(extmem.UnsupportedError, match=f"has no {lacking_name}") as caught:
                device.allocate(SIZE, **asked)
            assert "Fake Other GPU" in str(caught.value)
        with device.allocate(SIZE) as memory:
            memory.fill(3)
            assert memory.read()[-1] == 3
            with pytest.raises(extmem.UnsupportedError, match=f"has no {lacking_name}"):
                pickle.dumps(memory)
        with device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0)) as memory:
            memory.write(b"here" * (SIZE // 4))
            assert bytes(memory.read()[:4]) == b"here"


def test_a_missing_command_is_named_and_leaves_nothing() -> None:
    command = "vkGetMemoryFdKHR" if HAS_FDS else "vkGetMemoryWin32HandleKHR"
    with machine(OTHER, missing=frozenset({command})), opened() as device:
        with pytest.raises(extmem.UnsupportedError, match=f"Fake Other GPU has no command {command}"):
            export(device)
        if HAS_FDS:
            with export(device, types=FD) as memory, pytest.raises(extmem.UnsupportedError, match=command):
                fd(device, memory)
    with machine(OTHER), opened() as device:
        export(device).close()


def test_a_wrong_argument_leaves_no_device_behind() -> None:
    with machine(OTHER), pytest.raises(ValueError, match="check is 'maybe'"):
        opened(check="maybe")


# A device that is lost.


def test_a_lost_device_says_so_and_can_be_closed() -> None:
    with machine(OTHER) as fake, opened() as device:
        with export(device, types=TYPES) as memory, nt(device, memory) as handle:
            memory.fill(1)
            fake.lose_device()
            attempts: list[Callable[[], object]] = [
                lambda: export(device),
                lambda: memory.fill(2),
                lambda: memory.read(),
                lambda: import_win32(device, handle),
            ]
            if HAS_FDS:
                attempts.append(lambda: fd(device, memory))
            for attempt in attempts:
                with pytest.raises(extmem.DriverError, match="close it, open it again") as caught:
                    attempt()
                assert caught.value.result == _Result.ERROR_DEVICE_LOST
                assert caught.value.devices == ("Fake Other GPU",)
            # The payload is not lost: another device has it.
            with opened() as again, import_win32(again, handle) as found:
                assert found.read()[0] == 1


# Memory that is not coherent.


def test_what_is_not_flushed_the_device_does_not_see() -> None:
    with machine(fake_vulkan.NON_COHERENT), opened() as device, device.allocate(SIZE) as memory:
        with memory.map() as view:
            view[:4] = b"told"
            assert bytes(memory.read()[:4]) == bytes(4)
            memory.flush()
            assert bytes(memory.read()[:4]) == b"told"


def test_what_is_not_invalidated_the_host_does_not_see() -> None:
    with machine(fake_vulkan.NON_COHERENT), opened() as device, device.allocate(SIZE) as memory:
        with memory.map() as view:
            memory.fill(9)
            assert view[0] == 0
            memory.invalidate()
            assert view[0] == 9


def test_a_flush_writes_back_what_the_host_changed_and_nothing_else() -> None:
    with machine(fake_vulkan.NON_COHERENT), opened() as device, device.allocate(SIZE) as memory:
        with memory.map() as view:
            memory.fill(9)
            view[0] = 1
            memory.flush()
        found = memory.read()
        assert (found[0], found[SIZE - 1]) == (1, 9)


def test_coherent_memory_needs_neither() -> None:
    with machine(fake_vulkan.INTEGRATED), opened() as device, device.allocate(SIZE) as memory, memory.map() as view:
        view[0] = 7
        assert memory.read()[0] == 7
        memory.fill(8)
        assert view[0] == 8


# Two devices.


def test_another_gpus_payload_is_refused_with_both_names(name: str) -> None:
    with machine(fake_vulkan.DISCRETE, OTHER), opened(name="Other") as other, opened(name="Discrete") as device:
        with export(device, types=TYPES, name=name) as memory, export(device, types=KMT) as numbered:
            with nt(device, memory) as handle, another(device, memory) as ours:
                attempts: tuple[Callable[[], object], ...] = (
                    lambda: by_name(other, name),
                    lambda: import_win32(other, handle),
                    lambda: import_win32(other, kmt(device, numbered), kind=KMT),
                    lambda: import_any(other, ours, kind=W32),
                    lambda: other.open(name),
                    lambda: other.open(handle),
                )
                for attempt in attempts:
                    with pytest.raises(extmem.ExtmemError) as caught:
                        attempt()
                    assert "Fake Discrete GPU" in str(caught.value) and "Fake Other GPU" in str(caught.value)
                assert not ours.closed
            by_name(device, name).close()


def test_open_picks_the_gpu_that_the_payload_is_on(name: str) -> None:
    with machine(fake_vulkan.DISCRETE, OTHER), opened(name="Other") as other, opened(name="Discrete") as device:
        assert (other.uuid, device.uuid) == (OTHER.device_uuid, fake_vulkan.DISCRETE.device_uuid)
        with other.allocate(SIZE, name=name) as memory, another(other, memory) as ours:
            memory.fill(6)
            for source in (name, ours):
                with extmem.open(source) as found:
                    assert found.device.name == "Fake Other GPU" and found.read()[0] == 6
        with device.allocate(SIZE, name=f"{name} too"), extmem.open(f"{name} too") as found:
            assert found.device.name == "Fake Discrete GPU"


def test_the_better_gpu_comes_first() -> None:
    with machine(fake_vulkan.INTEGRATED, fake_vulkan.DISCRETE), opened() as device:
        assert device.name == "Fake Discrete GPU"
        assert device.identity.luid == b"fakeluid"


def test_a_driver_that_calls_host_pointers_exportable_is_corrected() -> None:
    """No command exports one. They are still reported as importable."""
    both = vk.ExternalMemoryFeatureFlagBits.EXPORTABLE | vk.ExternalMemoryFeatureFlagBits.IMPORTABLE
    external = tuple(dataclasses.replace(row, features=int(both)) for row in fake_vulkan.DISCRETE.external)
    usage = vk.BufferUsageFlagBits.TRANSFER_SRC
    with machine(dataclasses.replace(fake_vulkan.DISCRETE, external=external)), opened() as device:
        for kind, expected in (
            (vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION, vk.ExternalMemoryFeatureFlagBits.IMPORTABLE),
            (FD if HAS_FDS else W32, both),
        ):
            answer = device.get_physical_device_external_buffer_properties(
                vk.PhysicalDeviceExternalBufferInfo(usage=usage, handle_type=kind)
            )
            assert answer.external_memory_properties.external_memory_features == expected
