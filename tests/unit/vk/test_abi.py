"""Conversion to C and back: lifetimes, refused values, and the bytes in memory."""

from __future__ import annotations

import ctypes
import gc
import struct as packing
from pathlib import Path
from typing import Any

import pytest

from codegen import layout
from extmem import vk
from extmem.vk import abi

ROOT = Path(__file__).resolve().parents[3]
OPAQUE_WIN32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


class Closed(Exception):
    """Raised by a stand-in handle."""


class Handle:
    """Represents a handle like the library's handle objects: `int()` works while it is open."""

    def __init__(self, value: int | None) -> None:
        self.value = value

    def __int__(self) -> int:
        if self.value is None:
            raise Closed
        return self.value


class Raw:
    """Represents a device object with its C handle in `raw`."""

    raw = 0xABCDEF0123456789

    def __int__(self) -> int:
        raise Closed


def test_the_bytes_are_where_the_compiler_says() -> None:
    """The bytes are read by address and by the compiler's offsets, without cffi."""
    fixture: Any = layout.read_fixture(ROOT)
    info = vk.MemoryAllocateInfo(
        1 << 40, 7, vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, Handle(0x1234), "frame\U0001f600")
    )
    memory = abi.to_c(info)

    def member(address: int, struct: str, field: str) -> int:
        offset, size = fixture[struct]["fields"][field]
        return int(packing.unpack({4: "<I", 8: "<Q"}[size], ctypes.string_at(address + offset, size))[0])

    first = memory.address
    assert member(first, "VkMemoryAllocateInfo", "sType") == 5
    assert member(first, "VkMemoryAllocateInfo", "allocationSize") == 1 << 40
    assert member(first, "VkMemoryAllocateInfo", "memoryTypeIndex") == 7
    second = member(first, "VkMemoryAllocateInfo", "pNext")
    assert member(second, "VkImportMemoryWin32HandleInfoKHR", "sType") == 1000073000
    assert member(second, "VkImportMemoryWin32HandleInfoKHR", "pNext") == 0
    assert member(second, "VkImportMemoryWin32HandleInfoKHR", "handle") == 0x1234
    name = member(second, "VkImportMemoryWin32HandleInfoKHR", "name")
    assert ctypes.string_at(name, 16) == "frame\U0001f600\0".encode("utf-16-le")


def test_a_null_name_and_an_empty_name_differ() -> None:
    assert abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(name=None)).cdata.name == abi.ffi.NULL
    empty = abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(name=""))
    assert empty.cdata.name[0] == 0
    assert abi.from_c(vk.ImportMemoryWin32HandleInfoKHR, empty).name == ""


def test_everything_lives_as_long_as_the_result() -> None:
    memory = abi.to_c(
        vk.MemoryAllocateInfo(
            1,
            2,
            vk.ExportMemoryWin32HandleInfoKHR(vk.SecurityAttributes(b"\1\2\3\4", True), 3, "n" * 100),
        )
    )
    for _ in range(50):
        gc.collect()
        churn = [bytearray(64 + i) for i in range(200)]
        del churn
    read = abi.from_c(vk.MemoryAllocateInfo, memory)
    export = vk.find(read, vk.ExportMemoryWin32HandleInfoKHR)
    assert export is not None
    assert export.name == "n" * 100
    assert export.attributes is not None
    address = export.attributes.security_descriptor
    assert isinstance(address, int)
    assert ctypes.string_at(address, 4) == b"\1\2\3\4"
    assert export.attributes.inherit_handle is True


def test_the_source_lives_too_so_that_handles_stay_open() -> None:
    info = vk.ImportMemoryFdInfoKHR(1, Handle(5))
    assert abi.to_c(info).struct is info


@pytest.mark.parametrize(("given", "number"), [(None, 0), (7, 7), (Handle(9), 9), (Raw(), 0xABCDEF0123456789)])
def test_handles_are_ints_or_stand_for_one(given: object, number: int) -> None:
    assert abi.to_c(vk.MemoryGetFdInfoKHR(given)).cdata.memory == number
    assert abi.from_c(vk.MemoryGetFdInfoKHR, abi.to_c(vk.MemoryGetFdInfoKHR(given))).memory == (number or None)


def test_a_closed_handle_raises_its_own_error() -> None:
    with pytest.raises(Closed):
        abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, Handle(None)))
    abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, Handle(4)))


@pytest.mark.parametrize("given", ["12", b"12", 1.0, object(), [1]])
def test_a_value_that_is_not_a_handle_is_refused(given: object) -> None:
    with pytest.raises(TypeError, match=r"VkMemoryGetFdInfoKHR\.memory: .* is not an int or an object"):
        abi.to_c(vk.MemoryGetFdInfoKHR(given))


def test_invalid_handle_value_goes_through_and_wider_numbers_do_not() -> None:
    memory = abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, -1))
    assert abi.from_c(vk.ImportMemoryWin32HandleInfoKHR, memory).handle == 2**64 - 1
    with pytest.raises(ValueError, match="does not fit a pointer of 64 bits"):
        abi.to_c(vk.ImportMemoryWin32HandleInfoKHR(OPAQUE_WIN32, 2**64))


@pytest.mark.parametrize(
    ("struct", "words"),
    [
        (vk.MemoryAllocateInfo(2**64), r"VkMemoryAllocateInfo\.allocationSize: 18446\d+ does not fit uint64_t"),
        (vk.MemoryAllocateInfo(-1), r"allocationSize: -1 does not fit"),
        (vk.ExportMemoryAllocateInfo(2**32), r"handleTypes: .* does not fit uint32_t"),
        (vk.ImportMemoryFdInfoKHR(1, 2**31), r"fd: 2147483648 does not fit int"),
        (vk.BufferCreateInfo(queue_family_indices=(1, 2**32)), r"pQueueFamilyIndices\[1\]: 4294967296 does not fit"),
        (vk.ImportMemoryWin32HandleInfoKHR(name="a\0b"), r"name: 'a\\x00b' holds a NUL at index 1"),
        (vk.ImportMemoryWin32HandleInfoKHR(name="a\ud800"), r"half a surrogate pair \(U\+D800\) at index 1"),
        (vk.PhysicalDeviceProperties(device_name="x" * 256), r"256 bytes of UTF-8 and a NUL do not fit 256 bytes"),
        (vk.PhysicalDeviceProperties(device_name="a\0"), r"deviceName: .* holds a NUL"),
        (vk.PhysicalDeviceProperties(device_name="\udc00"), r"half a surrogate pair"),
        (vk.PhysicalDeviceIDProperties(b"short"), r"deviceUUID: has 5 bytes, must have 16"),
        (vk.PhysicalDeviceMemoryProperties((vk.MemoryType(),) * 33), r"memoryTypes: has 33 elements, .* room for 32"),
        (
            vk.PhysicalDeviceLimits(max_compute_work_group_count=(1, 2)),
            r"maxComputeWorkGroupCount: has 2 elements, must have 3",
        ),
        (
            vk.Win32KeyedMutexAcquireReleaseInfoKHR(acquire_syncs=(1, 2), acquire_keys=(1,), acquire_timeouts=(1, 2)),
            r"pAcquireKeys: has 1 elements, but acquire_syncs has 2, and acquireCount counts both",
        ),
        (
            vk.ExportMemoryWin32HandleInfoKHR(vk.SecurityAttributes("D:P(A;;GA;;;WD)")),
            r"'D:P\(A;;GA;;;WD\)' is SDDL text.* which the platform's manager must build first",
        ),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(struct: vk.Struct, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        abi.to_c(struct)


@pytest.mark.parametrize(
    "struct",
    [
        vk.MemoryAllocateInfo(2**64 - 1),
        vk.ExportMemoryAllocateInfo(2**32 - 1),
        vk.ImportMemoryFdInfoKHR(1, 2**31 - 1),
        vk.BufferCreateInfo(queue_family_indices=(1, 2**32 - 1)),
        vk.ImportMemoryWin32HandleInfoKHR(name="a b \U00010000"),
        vk.PhysicalDeviceProperties(device_name="x" * 255),
        vk.PhysicalDeviceIDProperties(b"s" * 16),
        vk.PhysicalDeviceMemoryProperties((vk.MemoryType(),) * 32),
        vk.PhysicalDeviceLimits(max_compute_work_group_count=(1, 2, 3)),
        vk.Win32KeyedMutexAcquireReleaseInfoKHR(
            acquire_syncs=(1, 2), acquire_keys=(1, 2), acquire_timeouts=(1, 2), release_syncs=(3,), release_keys=(4,)
        ),
        vk.ExportMemoryWin32HandleInfoKHR(vk.SecurityAttributes(0x1000, True)),
    ],
)
def test_values_that_just_fit_go_through(struct: vk.Struct) -> None:
    """The positive twins of the refused values above."""
    assert abi.from_c(type(struct), abi.to_c(struct)) == struct


@pytest.mark.parametrize(
    ("struct", "words"),
    [
        (vk.MemoryAllocateInfo(1, 1, vk.Extent3D()), r"VkMemoryAllocateInfo\.pNext: Extent3D.* cannot be chained"),  # type: ignore[arg-type]
        (vk.MemoryAllocateInfo("1"), r"allocationSize: '1' is not an int"),  # type: ignore[arg-type]
        (vk.MemoryPriorityAllocateInfoEXT("1"), r"priority: '1' is not a number"),  # type: ignore[arg-type]
        (vk.MemoryDedicatedRequirements("yes"), r"prefersDedicatedAllocation: 'yes' is not a bool"),  # type: ignore[arg-type]
        (vk.ImportMemoryWin32HandleInfoKHR(name=b"x"), r"name: b'x' is not a str"),  # type: ignore[arg-type]
        (vk.PhysicalDeviceProperties(device_name=b"x"), r"deviceName: b'x' is not a str"),  # type: ignore[arg-type]
        (vk.PhysicalDeviceIDProperties("x" * 16), r"deviceUUID: .* is not bytes"),  # type: ignore[arg-type]
        (vk.ImageCreateInfo(extent=vk.Offset3D()), r"extent: Offset3D.* is not a Extent3D"),  # type: ignore[arg-type]
        (vk.BufferCreateInfo(queue_family_indices="01"), r"pQueueFamilyIndices: '01' is not a sequence"),  # type: ignore[arg-type]
        (vk.PhysicalDeviceLimits(line_width_range=("a", 1.0)), r"lineWidthRange\[0\]: 'a' is not a number"),  # type: ignore[arg-type]
        (vk.ExportMemoryWin32HandleInfoKHR("D:P"), r"pAttributes: 'D:P' is not a SecurityAttributes"),  # type: ignore[arg-type]
        ("MemoryAllocateInfo", r"'MemoryAllocateInfo' is not a struct of extmem\.vk"),
    ],
)  # fmt: skip  # the ignores: each row is a wrong type on purpose
def test_values_of_another_type_are_refused(struct: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        abi.to_c(struct)


def test_a_chain_that_leads_back_into_itself_is_refused() -> None:
    last = vk.ExportMemoryWin32HandleInfoKHR()
    info = vk.MemoryAllocateInfo(1, 1, vk.ExportMemoryAllocateInfo(1, last))
    abi.to_c(info)
    last.p_next = info
    with pytest.raises(ValueError, match="leads back into itself"):
        abi.to_c(info)


def test_a_chain_in_c_that_leads_back_into_itself_is_refused() -> None:
    memory = abi.to_c(vk.MemoryAllocateInfo(1, 1, vk.ExportMemoryAllocateInfo(1)))
    abi.ffi.cast("VkExportMemoryAllocateInfo *", memory.cdata.pNext).pNext = memory.cdata
    with pytest.raises(ValueError, match="leads back into itself"):
        abi.from_c(vk.MemoryAllocateInfo, memory)


def test_unknown_links_are_omitted() -> None:
    memory = abi.to_c(vk.MemoryAllocateInfo(1, 1, vk.ExportMemoryAllocateInfo(1, vk.MemoryDedicatedAllocateInfo(2))))
    abi.ffi.cast("VkExportMemoryAllocateInfo *", memory.cdata.pNext).sType = 2000000000
    assert abi.from_c(vk.MemoryAllocateInfo, memory) == vk.MemoryAllocateInfo(1, 1, vk.MemoryDedicatedAllocateInfo(2))


def test_reading_the_wrong_struct_is_refused() -> None:
    memory = abi.to_c(vk.MemoryAllocateInfo(1, 1))
    with pytest.raises(ValueError, match=r"VkBufferCreateInfo\.sType: is 5, must be 12 \(BUFFER_CREATE_INFO\)"):
        abi.from_c(vk.BufferCreateInfo, memory)
    with pytest.raises(ValueError, match="VkExtent3D is not VkOffset3D"):
        abi.from_c(vk.Offset3D, abi.to_c(vk.Extent3D()).cdata[0])
    with pytest.raises(ValueError, match="there is no VkExtent3D at address 0"):
        abi.from_c(vk.Extent3D, 0)
    assert abi.from_c(vk.Extent3D, abi.to_c(vk.Extent3D(1, 2, 3)).cdata[0]) == vk.Extent3D(1, 2, 3)


def test_a_count_beyond_the_array_is_refused() -> None:
    memory = abi.to_c(vk.PhysicalDeviceMemoryProperties((vk.MemoryType(),)))
    memory.cdata.memoryTypeCount = 33
    with pytest.raises(ValueError, match="memoryTypeCount is 33, and there is room for 32"):
        abi.from_c(vk.PhysicalDeviceMemoryProperties, memory)


def test_a_count_without_an_array_reads_as_nothing() -> None:
    memory = abi.to_c(vk.BufferCreateInfo())
    memory.cdata.queueFamilyIndexCount = 3
    assert abi.from_c(vk.BufferCreateInfo, memory).queue_family_indices == ()


def test_structs_in_sequences_bring_their_own_chains() -> None:
    info = vk.DependencyInfo(
        buffer_memory_barriers=(
            vk.BufferMemoryBarrier2(buffer=5, p_next=vk.ExternalMemoryAcquireUnmodifiedEXT(True)),
            vk.BufferMemoryBarrier2(buffer=6),
        )
    )
    assert abi.from_c(vk.DependencyInfo, abi.to_c(info)) == info


def test_security_attributes_alone_go_to_c() -> None:
    memory = abi.to_c(vk.SecurityAttributes(None, True))
    assert (memory.cdata.nLength, memory.cdata.bInheritHandle) == (24, 1)
    assert abi.from_c(vk.SecurityAttributes, memory) == vk.SecurityAttributes(None, True)


def test_repr() -> None:
    assert repr(abi.to_c(vk.Extent3D())).startswith("<CStruct VkExtent3D at 0x")


def test_function_pointer_types_are_declared_for_every_command() -> None:
    for name in vk.COMMANDS:
        assert abi.ffi.typeof(f"PFN_{name}").kind == "function"
