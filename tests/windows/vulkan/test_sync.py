"""Semaphores and fences of a driver of Windows, with a scripted one that records its calls."""

from __future__ import annotations

from dataclasses import replace

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.handles import KmtHandle, NtHandle
from extmem.handles._win32 import calls
from extmem.manager import manager
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from extmem.testing.fake_vulkan.sync_win32 import make_d3d12_fence
from extmem.testing.waiting import DEADLINE
from tests.windows.sync_steps import KINDS, SEMAPHORE, WAIT_ALONE, create, handle_of, import_into, signal

GET = "vkGetSemaphoreWin32HandleKHR"
D3D12 = int(SEMAPHORE.D3D12_FENCE)
PEER = """
import extmem
from extmem.testing import fake_vulkan
from tests.windows.sync_steps import *
fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
installed = fake_vulkan.installed(fake)
installed.__enter__()
device = extmem.open_device(kind="vulkan")
None
"""


def is_signaled(device: Device, item: object) -> bool:
    """Whether it is signaled now; of a binary semaphore, whether a batch that waits for it is done at once."""
    if isinstance(item, extmem.Semaphore) and item.semaphore_type == vk.SemaphoreType.BINARY:
        with device.create_fence(vk.FenceCreateInfo()) as done:
            device.queue_submit([vk.SubmitInfo(wait_semaphores=[item], wait_dst_stage_mask=[0x10000])], done)
            return device.wait_for_fences([done], 5_000_000_000)
    if isinstance(item, extmem.Semaphore):
        return device.get_semaphore_counter_value(item) >= 1
    assert isinstance(item, extmem.Fence)
    return device.get_fence_status(item)


@pytest.mark.parametrize("kind", KINDS)
def test_the_driver_gets_name_rights_and_security(
    device: Device, fake: fake_vulkan.FakeVulkan, name: str, kind: str
) -> None:
    security = vk.SecurityAttributes("D:(A;;GA;;;WD)", True)
    with create(device, kind, name=name, access=WAIT_ALONE, security=security) as made:
        share = fake.shares[-1]
        assert (share.name, share.access, share.sddl, share.inherit) == (name, WAIT_ALONE, "D:(A;;GA;;;WD)", True)
        with handle_of(device, made) as handle:
            assert isinstance(handle, NtHandle)
            assert (handle.info.granted_access, handle.info.inherit) == (0x2_0001, True)
            assert handle.info.type_name == "DxgkSharedSyncObject"
            assert calls.flags(share.first) == 0, "what extmem keeps for itself is never inherited"


def test_a_bare_handle_leads_to_the_description(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """S53: nothing in the handle tells a binary semaphore from a timeline, so what has no name gets a random one."""
    with create(device, "timeline") as made, handle_of(device, made) as handle:
        assert fake.shares[-1].name.startswith("extmem.gpu.")  # type: ignore[union-attr]  # it has one
        assert isinstance(handle, NtHandle) and handle.info.name == ""
        with pytest.raises((errors.RuleViolation, errors.DriverError)):
            import_into(device, "binary", handle)
        assert not fake.bad_imports, "it does not reach the driver"
        import_into(device, "timeline", handle).close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by", ["name", "handle"])
def test_a_payload_is_imported_by_handle_in_another_process(
    device: Device, peer: Peer, name: str, kind: str, by: str
) -> None:
    """S79: some implementations open a name, then demand a handle, and fail."""
    peer(PEER)
    with create(device, kind, name=name) as made, handle_of(device, made) as handle:
        assert isinstance(handle, NtHandle)
        if by == "name":
            peer("other = import_into(device, kind, name=name.upper())", kind=kind, name=name)
        else:
            value = handle.duplicate(into=peer.pid)
            peer("other = import_into(device, kind, value)", kind=kind, value=value)
            peer("from extmem.manager import manager\nmanager().close(value)")
        peer("signal(device, other)")
        assert is_signaled(device, made)
        assert peer("[str(misuse) for misuse in fake.misuses]") == []
        peer("other.close()\ndevice.close()\ninstalled.__exit__(None, None, None)")


def test_the_driver_is_asked_once_for_each_object(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """01127: what programs get are duplicates."""
    with create(device, "binary") as made:
        handles = [made.export_handle() for _ in range(3)]
        assert fake.calls.count(GET) == 1 and fake.shares[-1].given == 1
        for handle in handles:
            handle.close()


@pytest.mark.parametrize("kind", ["binary", "fence"])
def test_a_number_ends_with_the_payload(device: Device, fake: fake_vulkan.FakeVulkan, kind: str) -> None:
    with create(device, kind, types=0x4) as made:
        number = handle_of(device, made, 0x4)
        assert isinstance(number, KmtHandle)
        with import_into(device, kind, number, bit=4) as other:
            signal(device, other)
            assert is_signaled(device, made)
        wrong = "binary" if kind == "fence" else "fence"
        with pytest.raises((errors.InvalidHandleError, errors.RuleViolation)):
            import_into(device, wrong, number, bit=4)
        assert not fake.bad_imports
    assert not manager().kmt_alive(int(number))
    with pytest.raises((errors.InvalidHandleError, errors.RuleViolation)):
        import_into(device, kind, number, bit=4)


def test_a_timeline_never_gets_a_number(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """S63: the driver lists the type, and crashes. The rules off, it is refused all the same."""
    timelines = vk.SemaphoreTypeCreateInfo(vk.SemaphoreType.TIMELINE)
    info = vk.PhysicalDeviceExternalSemaphoreInfo(SEMAPHORE.OPAQUE_WIN32_KMT, timelines)
    assert not device.get_physical_device_external_semaphore_properties(info).external_semaphore_features
    for check in ("raise", "off"):
        with extmem.open_device(kind="vulkan", check=check) as other:
            before = fake.calls.count("vkCreateSemaphore")
            with pytest.raises((errors.RuleViolation, errors.DriverError, errors.UnsupportedError)):
                create(other, "timeline", types=0x4)
            assert fake.calls.count("vkCreateSemaphore") == before


def test_a_taken_name_never_reaches_the_driver(device: Device, fake: fake_vulkan.FakeVulkan, name: str) -> None:
    with create(device, "binary", name=name):
        before = len(fake.shares)
        for kind in KINDS:
            with pytest.raises((errors.NameTakenError, errors.ObjectTypeError)):
                create(device, kind, name=name)
        with pytest.raises((errors.NameTakenError, errors.ObjectTypeError)):
            device.allocate(16, name=name)
        assert len(fake.shares) == before
    with pytest.raises(errors.SecurityDescriptorError):
        create(device, "binary", security=vk.SecurityAttributes("D:(A;XX;GA;;;WD)"))


def test_a_fence_of_direct3d_has_values(device: Device, fake: fake_vulkan.FakeVulkan, name: str) -> None:
    """S35, S36: into a timeline it is a timeline; into a binary semaphore, with values from the submission."""
    made = make_d3d12_fence(fake, 5, name=name)
    try:
        with import_into(device, "timeline", made.fd, bit=D3D12) as timeline:
            assert isinstance(timeline, extmem.Semaphore)
            assert device.get_semaphore_counter_value(timeline) == 5
            with import_into(device, "binary", name=name, bit=D3D12) as binary, device.fence() as done:
                values = vk.D3D12FenceSubmitInfoKHR((5,), (7,))
                batch = vk.SubmitInfo([binary], [0x10000], [], [binary], values)
                device.queue_submit([batch], done)
                assert device.wait_for_fences([done], 5_000_000_000)
            assert device.get_semaphore_counter_value(timeline) == 7
    finally:
        made.close()


def test_a_shared_timeline_has_a_host_word(device: Device, peer: Peer, name: str) -> None:
    """A wait of the host is a wait for it, so a signal of another process wakes it, and a death ends it."""
    peer(PEER)
    with device.timeline(name=name) as made:
        peer("opened = extmem.open_timeline(name, device=device)\nopened.signal(3)", name=name)
        made.wait(3, timeout=DEADLINE)
        peer.kill()
        with pytest.raises(errors.PeerGoneError):
            made.wait(4, timeout=DEADLINE)
        made.signal(4)
        made.wait(4, timeout=DEADLINE)


def test_a_driver_without_timelines_that_are_shared_uses_the_hosts(peer: Peer, name: str, nothing_left: None) -> None:
    binary = tuple(one for one in fake_vulkan.INTEGRATED.sync if one.kind != "timeline")
    fake = fake_vulkan.FakeVulkan([replace(fake_vulkan.INTEGRATED, sync=binary)])
    with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
        assert device.capabilities.timelines == "host"
        with device.timeline(name=name) as made:
            peer("import extmem\nopened = extmem.open_timeline(name)\nopened.signal(2)", name=name)
            made.wait(2, timeout=DEADLINE)
            with device.commands(wait=(made, 2), signal=(made, 3)):
                pass
            peer("opened.wait(3, timeout=20)\nopened.close()")


def test_a_keyed_mutex_that_is_held_is_a_timeout(device: Device, fake: fake_vulkan.FakeVulkan) -> None:
    """S44: VK_TIMEOUT is not in the command's list, and is a positive result. Nothing was submitted."""
    fake.fail(1, vk.Result.TIMEOUT, command="vkQueueSubmit")
    with device.fence() as done:
        with pytest.raises(errors.DriverError, match="keyed mutex") as caught:
            device.queue_submit2([vk.SubmitInfo2()], done)
        assert caught.value.result == vk.Result.TIMEOUT
        assert not device.get_fence_status(done)
        device.queue_submit2([vk.SubmitInfo2()], done)
        assert device.wait_for_fences([done], 5_000_000_000)
