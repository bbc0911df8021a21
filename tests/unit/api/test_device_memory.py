"""`Device`, `DeviceMemory`, buffers and images: their states, their errors, and their descriptions."""

from __future__ import annotations

import contextlib
import uuid
import warnings
from collections.abc import Callable

import pytest

import extmem
from extmem import errors, vk
from extmem.api import Device
from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
from tests.behaviours.platforms import by_fd
from tests.behaviours.steps import FD, KMT, SIZE, W32, by_name, export, get, import_win32, nt, put
from tests.systems import on_linux


def _buffer_info(**values: object) -> vk.BufferCreateInfo:
    return vk.BufferCreateInfo(
        size=SIZE, usage=vk.BufferUsageFlagBits.TRANSFER_SRC, p_next=vk.ExternalMemoryBufferCreateInfo(W32)
    )


def test_a_device_by_kind_uuid_or_name(device: Device) -> None:
    for choice in (
        {"uuid": device.uuid},
        {"uuid": uuid.UUID(bytes=device.uuid)},
        {"uuid": device.uuid.hex()},
        {"name": "HOST"},
    ):
        with extmem.open_device(**choice) as same:  # type: ignore[arg-type]
            assert same.uuid == device.uuid and same.kind == "host" and repr(same) == repr(device)
    for wrong in ({"kind": "abacus"}, {"uuid": bytes(16)}, {"name": "no such"}):
        with pytest.raises(errors.UnsupportedError, match="there is"):
            extmem.open_device(**wrong)  # type: ignore[arg-type]
    assert device.identity in extmem.enumerate_devices()


def test_check_takes_three_words() -> None:
    with pytest.raises(ValueError, match='"raise"'):
        extmem.open_device(check="maybe")  # type: ignore[arg-type]


def test_a_closed_device_refuses_and_an_open_one_with_memory_does_not_close() -> None:
    device = extmem.open_device()
    memory = device.allocate(16)
    with pytest.raises(errors.HandleStateError, match="1 memory object"):
        device.close()
    memory.close()
    device.close()
    device.close()
    for attempt in (
        lambda: device.allocate(16),
        lambda: device.create_buffer(_buffer_info()),
        lambda: device.open("x"),
    ):
        with pytest.raises(errors.HandleStateError, match="closed"):
            attempt()


def test_the_properties_of_memory(device: Device, name: str) -> None:
    with device.allocate((2, 3), "int16", name=name) as memory:
        assert (memory.name, memory.size, memory.read_only, memory.closed) == (name, 12, False, False)
        assert memory.allocation_size >= 12 and memory.memory_type_index == 0 and memory.device is device
        described = memory.descriptor
        assert described.payload_size == 12 and described.array is not None and described.array.shape == (2, 3)
        assert described.device_uuid == device.uuid and described.handle_types & (W32 | FD)
        assert name in repr(memory) and "12 bytes" in repr(memory)
    assert memory.closed and "closed" in repr(memory)
    memory.close()
    for attempt in (memory.map, memory.numpy, memory.export_handle, memory.__enter__):
        with pytest.raises(errors.HandleStateError, match="closed"):
            attempt()


def test_freeing_is_closing(device: Device) -> None:
    memory = export(device)
    device.free_memory(memory)
    assert memory.closed


def test_new_memory_is_zero(device: Device) -> None:
    with device.allocate(1 << 16) as memory, memory.map() as view:
        assert not any(view)


@pytest.mark.parametrize(
    ("types", "kind"),
    [
        (W32, NtHandle),
        (KMT, KmtHandle),
        on_linux(W32 | FD, NtHandle),
        on_linux(KMT | FD, KmtHandle),
        on_linux(FD, FdHandle),
    ],
)
def test_the_strongest_handle_is_the_default(device: Device, types: int, kind: type) -> None:
    with device.allocate(64, handle_types=types) as memory, memory.export_handle() as handle:
        assert isinstance(handle, kind)
        with extmem.open(handle, device=device) as other:
            assert other.size == 64


def test_access_with_the_high_level_api(device: Device, name: str) -> None:
    with device.allocate(64, name=name, access=Access.READ) as memory:
        with extmem.open(name) as other:
            assert other.read_only and not memory.read_only
            put(memory, b"look")
            assert get(other) == b"look"
        with pytest.raises(errors.AccessDeniedError):
            extmem.open(name, access=Access.READ_WRITE)
        with pytest.raises(errors.AccessDeniedError):
            extmem.open_handle(name, Access.READ_WRITE)
    with device.allocate(64, name=name), extmem.open(name, access=Access.READ) as other:
        assert other.read_only


def test_open_imports_once_and_each_memory_object_is_closed_by_itself(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory:
        put(memory, b"once")
        first, second = extmem.open(name), extmem.open(name.upper())
        assert first is not second and first.record is second.record
        first.close()
        assert get(second) == b"once"
        with extmem.open(name) as third:
            assert third.record is second.record
        second.close()
        with extmem.open(name) as again:
            assert get(again) == b"once"


def test_opening_the_handle_of_what_is_open_by_name(device: Device, name: str) -> None:
    with device.allocate(64, name=name) as memory, memory.export_handle() as handle:
        assert isinstance(handle, NtHandle)
        with extmem.open(name) as a, extmem.open(handle) as b:
            put(a, b"pair")
            assert get(b) == b"pair"


@pytest.mark.parametrize("shape", [-1, (2, -2)])
def test_negative_extents_are_refused(device: Device, shape: int | tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="has a negative extent; give 0 or more"):
        device.allocate(shape)
    for possible in ((), (0,), (3, 0), 0, (1,)):
        with device.allocate(possible) as memory:
            assert memory.shape == (possible if isinstance(possible, tuple) else (possible,)) and memory.size == 1


def test_check_warn_warns_for_each_rule_and_goes_on(name: str) -> None:
    with extmem.open_device(check="warn") as device, export(device) as memory, nt(device, memory) as handle:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            again = nt(device, memory)
        assert [w.category for w in seen] == [extmem.RuleWarning] and "00663" in str(seen[0].message)
        assert again.same_object(handle)
        again.close()


def _not_for_export(device: Device, memory: object) -> None:
    with device.allocate_memory(vk.MemoryAllocateInfo(4096, 0)) as alone, contextlib.suppress(errors.ExtmemError):
        device.get_memory_win32_handle(vk.MemoryGetWin32HandleInfoKHR(alone, W32))


def _many_violations(device: Device, memory: object) -> None:
    with contextlib.suppress(errors.ExtmemError, OSError):
        device.allocate_memory(vk.MemoryAllocateInfo(0, 0))


def _buffer_of_nothing(device: Device, memory: object) -> None:
    with contextlib.suppress(errors.ExtmemError):
        device.create_buffer(vk.BufferCreateInfo(size=0, usage=0)).close()


@pytest.mark.parametrize("call", [_not_for_export, _many_violations, _buffer_of_nothing])
def test_a_rule_warning_points_at_the_line_that_made_the_call(call: Callable[[Device, object], None]) -> None:
    """However deep in the library the rule is checked; Python shows a warning once for each line."""
    with extmem.open_device(check="warn") as device, export(device) as memory:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call(device, memory)
        assert seen and {(one.category, one.filename) for one in seen} == {(extmem.RuleWarning, __file__)}
        first = call.__code__.co_firstlineno
        assert {first < one.lineno <= first + 3 for one in seen} == {True}


def test_check_off_still_does_not_read_past_a_payload() -> None:
    with extmem.open_device(check="off") as device, export(device) as memory, nt(device, memory) as handle:
        with pytest.raises(errors.DriverError, match="8192.*4096"):
            import_win32(device, handle, size=8192)
        assert not handle.closed


def test_a_violation_reports_all_that_it_breaks(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle, pytest.raises(extmem.RuleViolation) as error:
        import_win32(device, handle, "and a name", size=8192, index=77)
    assert len(error.value.vuids) >= 2
    assert error.value.command == "vkAllocateMemory"
    assert all(v.where and v.problem and v.remedy for v in error.value.violations)


def test_buffers_have_states(device: Device) -> None:
    with device.create_buffer(_buffer_info()) as buffer:
        assert buffer.memory is None and "unbound" in repr(buffer) and buffer.create_info.size == SIZE
        with pytest.raises(errors.HandleStateError, match="not bound to memory"):
            buffer.map()
        with export(device, size=SIZE * 2) as memory:
            device.bind_buffer_memory(buffer, memory, SIZE)
            with buffer.map() as view:
                view[:4] = b"bind"
            assert get(memory, at=SIZE) == b"bind" and "bound" in repr(buffer)
            with pytest.raises(extmem.RuleViolation):
                device.bind_buffer_memory(buffer, memory)
    assert buffer.closed and "destroyed" in repr(buffer)
    with pytest.raises(errors.HandleStateError, match="destroyed"):
        buffer.map()


def test_all_bindings_are_checked_before_any_is_made(device: Device) -> None:
    with (
        export(device) as memory,
        device.create_buffer(_buffer_info()) as good,
        device.create_buffer(_buffer_info()) as bad,
    ):
        with pytest.raises(extmem.RuleViolation):
            device.bind_buffer_memory2(
                [vk.BindBufferMemoryInfo(good, memory, 0), vk.BindBufferMemoryInfo(bad, memory, SIZE * 9)]
            )
        assert good.memory is None
        device.bind_buffer_memory(good, memory)


def test_foreign_objects_are_refused_with_a_reference_to_raw(device: Device) -> None:
    with export(device) as memory, pytest.raises(TypeError, match="extmem.raw"):
        device.bind_buffer_memory(1234, memory)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="DeviceMemory"):
        device.get_memory_fd(vk.MemoryGetFdInfoKHR(1234, FD))
    with pytest.raises(TypeError, match="extmem.raw"):
        extmem.open(1234)  # type: ignore[arg-type]


def test_images_lay_out_linear_texels(device: Device) -> None:
    info = vk.ImageCreateInfo(
        image_type=vk.ImageType.TYPE_2D,
        format=vk.Format.R8G8B8A8_UNORM,
        extent=vk.Extent3D(10, 4, 1),
        mip_levels=1,
        array_layers=1,
        samples=vk.SampleCountFlagBits.COUNT_1,
        tiling=vk.ImageTiling.LINEAR,
        usage=vk.ImageUsageFlagBits.TRANSFER_SRC,
        p_next=vk.ExternalMemoryImageCreateInfo(W32),
    )
    with device.create_image(info) as image, export(device, size=image.requirements.size) as memory:
        device.bind_image_memory(image, memory)
        layout = image.subresource_layout(vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR))
        assert layout.row_pitch >= 40 and layout.size <= image.requirements.size
        assert image.create_info.extent.width == 10
        with image.map() as view:
            assert view.nbytes == image.requirements.size


def test_properties_of_handles_are_for_non_opaque_types(device: Device) -> None:
    with export(device) as memory, nt(device, memory) as handle, pytest.raises(extmem.RuleViolation):
        device.get_memory_win32_handle_properties(W32, handle)


@by_fd
def test_properties_of_fds_are_for_non_opaque_types(device: Device) -> None:
    with export(device, types=FD) as memory:
        descriptor = memory.export_handle(FD)
        assert isinstance(descriptor, FdHandle)
        with descriptor, pytest.raises(extmem.RuleViolation):
            device.get_memory_fd_properties(FD, descriptor)


def test_host_pointers_are_imported_by_address(device: Device) -> None:
    import ctypes
    import mmap

    kind = vk.ExternalMemoryHandleTypeFlagBits.HOST_ALLOCATION
    with mmap.mmap(-1, SIZE) as pages:
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        bits = device.get_memory_host_pointer_properties(kind, address).memory_type_bits
        assert bits & 1
        info = vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryHostPointerInfoEXT(kind, address))
        with device.allocate_memory(info) as memory:
            put(memory, b"host")
            assert pages[:4] == b"host"
            with pytest.raises(extmem.ExtmemError):
                memory.export_handle(FD)
        import gc

        gc.collect()
    with pytest.raises(extmem.ExtmemError):
        device.allocate_memory(vk.MemoryAllocateInfo(SIZE, 0, vk.ImportMemoryHostPointerInfoEXT(kind, 4096)))


@by_fd
def test_a_payload_without_description_is_stated_by_the_caller(device: Device) -> None:
    import os

    with export(device, types=FD) as memory:
        put(memory, b"raw!")
        number = memory.export_handle(FD).take()
        with extmem.raw.import_payload(device, number, memory.descriptor) as other:
            assert get(other) == b"raw!"
        with pytest.raises(OSError):
            os.fstat(number)  # consumed


def test_sharing_across_two_devices_of_one_physical_device(device: Device, name: str) -> None:
    with extmem.open_device() as other, export(device, name=name) as memory, by_name(other, name) as imported:
        put(memory, b"same")
        assert get(imported) == b"same"
        assert (device.live_allocations, other.live_allocations) == (1, 1)


@pytest.mark.linux_only("Windows has sections")
def test_sections_of_other_programs_need_windows() -> None:
    with pytest.raises(extmem.UnsupportedError, match="sections"):
        extmem.raw.open_section("X")
