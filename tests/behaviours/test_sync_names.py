"""S22–S32 for names, rights and types: semaphores and fences beside memory in one object manager, by public calls."""

from __future__ import annotations

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.api.fence import Fence
from extmem.api.semaphore import Semaphore
from extmem.handles import KmtHandle, NtHandle
from tests.behaviours.steps import ACCESS_DENIED, INVALID_PARAMETER, TYPE_MISMATCH, export, kmt, nt

W32 = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32
KMT = vk.ExternalSemaphoreHandleTypeFlagBits.OPAQUE_WIN32_KMT
FENCE_W32 = vk.ExternalFenceHandleTypeFlagBits.OPAQUE_WIN32
ALL, READ, SIGNAL = 0x1F_0003, 0x8000_0000, 0x4000_0000


def semaphore(
    device: Device,
    name: str | None = None,
    *,
    timeline: bool = False,
    access: int = ALL,
    security: vk.SecurityAttributes | None = None,
    types: int = W32,
) -> Semaphore:
    """Call vkCreateSemaphore with export info."""
    named = vk.ExportSemaphoreWin32HandleInfoKHR(security, access, name) if types & W32 else None
    exported = vk.ExportSemaphoreCreateInfo(types, named)
    kind = vk.SemaphoreType.TIMELINE if timeline else vk.SemaphoreType.BINARY
    return device.create_semaphore(vk.SemaphoreCreateInfo(p_next=vk.SemaphoreTypeCreateInfo(kind, 0, exported)))


def fence(device: Device, name: str) -> Fence:
    """Call vkCreateFence with export info."""
    named = vk.ExportFenceWin32HandleInfoKHR(None, ALL, name)
    return device.create_fence(vk.FenceCreateInfo(p_next=vk.ExportFenceCreateInfo(FENCE_W32, named)))


def handle_of(device: Device, made: Semaphore) -> NtHandle:
    """Call vkGetSemaphoreWin32HandleKHR for OPAQUE_WIN32."""
    handle = device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(made, W32))
    assert isinstance(handle, NtHandle)
    return handle


def import_into(
    device: Device, made: Semaphore, handle: object = None, name: str | None = None, kind: int = W32
) -> None:
    """Call vkImportSemaphoreWin32HandleKHR."""
    device.import_semaphore_win32_handle(vk.ImportSemaphoreWin32HandleInfoKHR(made, 0, kind, handle, name))


def other_name(name: str) -> str:
    return f"{name} 2"


@pytest.mark.parametrize("timeline", [False, True])
def test_S22_names_are_in_one_space_with_memory(device: Device, name: str, timeline: bool) -> None:
    with semaphore(device, name, timeline=timeline) as made:
        for taken in (
            lambda: export(device, name=name),
            lambda: semaphore(device, name.upper()),
            lambda: fence(device, name),
        ):
            with pytest.raises((errors.NameTakenError, errors.ObjectTypeError)):
                taken().close()
        with semaphore(device, timeline=timeline) as other:
            import_into(device, other, name=name)
        handle = handle_of(device, made)
    with handle:  # the handle keeps the object and its name
        with semaphore(device, timeline=timeline) as other:
            import_into(device, other, name=name.upper())
    with semaphore(device, timeline=timeline) as other, pytest.raises(errors.NameNotFoundError):
        import_into(device, other, name=name)
    export(device, name=name).close()


@pytest.mark.linux_only("the type of the kernel's objects is Semaphore, Event or Section on Windows")
def test_S23_rights_of_handles(device: Device, name: str) -> None:
    everybody = vk.SecurityAttributes("D:(A;;GA;;;WD)")
    with semaphore(device, name, security=everybody) as made, handle_of(device, made) as first:
        assert (first.info.granted_access, first.info.type_name) == (ALL, "DxgkSharedSyncObject")
        for asked, granted in ((READ, 0x2_0001), (SIGNAL, 0x2_0002), (0x8000_0001, 0x2_0001), (0x1000_0000, ALL)):
            with extmem.open_handle(name, asked) as handle:
                assert handle.access == granted
        with pytest.raises(errors.AccessDeniedError) as caught:
            extmem.open_handle(name, 0x8000_0004)
        assert caught.value.ntstatus == ACCESS_DENIED


def test_S23_who_may_only_wait_cannot_signal(device: Device, name: str) -> None:
    with semaphore(device, name, timeline=True), extmem.open_timeline(name, device=device, access=READ) as reader:
        with pytest.raises(errors.AccessDeniedError):
            reader.signal(1)
        with extmem.open_timeline(name, device=device) as writer:
            writer.signal(1)
        reader.wait(1, timeout=20)


def test_S24_without_the_struct_a_semaphore_may_be_waited_for_and_signaled(device: Device) -> None:
    made = device.create_semaphore(vk.SemaphoreCreateInfo(p_next=vk.ExportSemaphoreCreateInfo(W32)))
    with made, handle_of(device, made) as handle:
        assert handle.info.granted_access & 3 == 3


def test_S26_memory_is_not_a_semaphore_and_a_semaphore_is_not_memory(device: Device, name: str) -> None:
    with (
        export(device, name=name) as memory,
        semaphore(device, other_name(name)) as made,
        nt(device, memory) as of_memory,
        handle_of(device, made) as of_semaphore,
        semaphore(device) as target,
    ):
        for handle, named in ((of_memory, None), (None, name)):
            with pytest.raises(errors.ObjectTypeError) as caught:
                import_into(device, target, handle, named)
            assert caught.value.ntstatus == TYPE_MISMATCH
        for wrong in (of_semaphore, None):
            source = vk.ImportMemoryWin32HandleInfoKHR(W32, wrong, None if wrong else other_name(name))
            with pytest.raises(errors.ObjectTypeError) as caught:
                device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, source))
            assert caught.value.ntstatus == TYPE_MISMATCH
        import_into(device, target, of_semaphore)  # the handles are open, and the target is as before


def test_S26_a_fence_is_not_a_semaphore(device: Device, name: str) -> None:
    with fence(device, name), semaphore(device, other_name(name)), semaphore(device) as target:
        with pytest.raises(errors.ObjectTypeError, match="fence"):
            import_into(device, target, name=name)
        import_into(device, target, name=other_name(name))


def test_S26_numbers_are_of_one_kind(device: Device) -> None:
    with semaphore(device, types=KMT) as made, export(device, types=int(KMT)) as memory, semaphore(device) as target:
        number = device.get_semaphore_win32_handle(vk.SemaphoreGetWin32HandleInfoKHR(made, KMT))
        assert isinstance(number, KmtHandle)
        with pytest.raises(errors.ExtmemError) as caught:
            import_into(device, target, kmt(device, memory), kind=KMT)
        assert getattr(caught.value, "ntstatus", None) == INVALID_PARAMETER
        with pytest.raises(errors.ExtmemError):
            device.allocate_memory(vk.MemoryAllocateInfo(4096, 0, vk.ImportMemoryWin32HandleInfoKHR(KMT, number)))
        import_into(device, target, number, kind=KMT)


def test_S29_a_handle_keeps_the_payload(device: Device) -> None:
    made = semaphore(device, timeline=True)
    with made:
        handle = handle_of(device, made)
        device.signal_semaphore(vk.SemaphoreSignalInfo(made, 5))
    with handle, semaphore(device, timeline=True) as other:
        import_into(device, other, handle)
        assert device.get_semaphore_counter_value(other) == 5


def test_S32_a_payload_is_known_by_its_object(device: Device) -> None:
    with semaphore(device) as made, handle_of(device, made) as handle, semaphore(device) as another:
        with handle.duplicate() as copy, handle_of(device, another) as strange:
            assert handle.same_object(copy) and not handle.same_object(strange)
