"""The structs, enums and commands of `extmem.vk`: names, order, defaults, chains, tables."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pickle
import subprocess
import sys
import types
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from extmem import vk

NAMED = {name: getattr(vk, name) for name in vk.__all__}
STRUCTS = sorted(
    {v for v in NAMED.values() if isinstance(v, type) and issubclass(v, vk.Struct) and "C_NAME" in vars(v)},
    key=lambda cls: cls.C_NAME,
)
CHAINABLE = [cls for cls in STRUCTS if issubclass(cls, vk.ChainStruct)]
OPAQUE_WIN32 = vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_WIN32


def names_of(cls: type) -> list[str]:
    return [f.name for f in dataclasses.fields(cls)]


@pytest.mark.parametrize(
    ("cls", "order"),
    [
        (vk.MemoryAllocateInfo, ["allocation_size", "memory_type_index", "p_next"]),
        (vk.ImportMemoryWin32HandleInfoKHR, ["handle_type", "handle", "name", "p_next"]),
        (vk.ExportMemoryWin32HandleInfoKHR, ["attributes", "access", "name", "p_next"]),
        (vk.MemoryGetWin32HandleInfoKHR, ["memory", "handle_type", "p_next"]),
        (vk.ImportMemoryFdInfoKHR, ["handle_type", "fd", "p_next"]),
        (vk.ImportMemoryHostPointerInfoEXT, ["handle_type", "host_pointer", "p_next"]),
        (vk.BufferCreateInfo, ["flags", "size", "usage", "sharing_mode", "queue_family_indices", "p_next"]),
        (vk.PhysicalDeviceIDProperties, ["device_uuid", "driver_uuid", "device_luid", "device_node_mask"]
         + ["device_luid_valid", "p_next"]),
        (vk.Extent3D, ["width", "height", "depth"]),
        (vk.PhysicalDeviceMemoryProperties, ["memory_types", "memory_heaps"]),
    ],
)  # fmt: skip
def test_fields_stand_in_c_order_with_p_next_last(cls: type, order: list[str]) -> None:
    assert names_of(cls) == order


def test_names_with_digits_and_acronyms() -> None:
    limits = names_of(vk.PhysicalDeviceLimits)
    assert {"max_image_dimension_2d", "max_image_dimension_cube", "non_coherent_atom_size"} <= set(limits)
    assert "residency_standard_2d_block_shape" in names_of(vk.PhysicalDeviceSparseProperties)
    assert {"vendor_id", "pipeline_cache_uuid"} <= set(names_of(vk.PhysicalDeviceProperties))


@pytest.mark.parametrize("cls", STRUCTS)
def test_every_struct_can_be_made_without_arguments_and_compares_by_value(cls: type[vk.Struct]) -> None:
    made = cls()
    assert made == cls()
    assert made is not cls()
    assert pickle.loads(pickle.dumps(made)) == made
    assert not hasattr(made, "__dict__")
    with pytest.raises(AttributeError):
        made.no_such_field = 1  # type: ignore[attr-defined]  # the test is that it fails


def test_two_structs_do_not_share_the_struct_inside_them() -> None:
    one, two = vk.ImageCreateInfo(), vk.ImageCreateInfo()
    one.extent.width = 7
    assert two.extent.width == 0


@pytest.mark.parametrize("cls", CHAINABLE)
def test_s_type_is_fixed_by_the_class(cls: type[vk.ChainStruct]) -> None:
    made = cls()
    assert made.s_type is cls.S_TYPE
    assert made.p_next is None
    with pytest.raises(AttributeError):
        made.s_type = vk.StructureType.BUFFER_CREATE_INFO  # type: ignore[misc]  # the test is that it fails


def test_s_types_are_distinct() -> None:
    assert len({cls.S_TYPE for cls in CHAINABLE}) == len(CHAINABLE)


def test_old_names_are_the_same_struct() -> None:
    assert vk.ExportMemoryAllocateInfoKHR is vk.ExportMemoryAllocateInfo
    assert vk.ExternalMemoryHandleTypeFlagBitsKHR is vk.ExternalMemoryHandleTypeFlagBits


def test_vendor_suffix_may_be_left_out() -> None:
    bits = vk.ExternalMemoryHandleTypeFlagBits
    same: list[tuple[object, object]] = [
        (bits.DMA_BUF, bits.DMA_BUF_EXT),
        (bits.HOST_ALLOCATION, bits.HOST_ALLOCATION_EXT),
        (bits.OPAQUE_WIN32_KHR, bits.OPAQUE_WIN32),
    ]
    assert all(alias is member for alias, member in same)
    assert str(bits(0x200).name) == "DMA_BUF_EXT"


def test_values_are_those_of_the_registry() -> None:
    bits = vk.ExternalMemoryHandleTypeFlagBits
    assert [int(b) for b in (bits.OPAQUE_FD, bits.OPAQUE_WIN32, bits.OPAQUE_WIN32_KMT, bits.D3D11_TEXTURE)] == [
        1,
        2,
        4,
        8,
    ]
    assert int(vk.Result.ERROR_INVALID_EXTERNAL_HANDLE) == -1000072003
    assert int(vk.StructureType.EXPORT_MEMORY_WIN32_HANDLE_INFO_KHR) == 1000073001
    assert int(vk.AccessFlagBits2.SHADER_STORAGE_WRITE) == 1 << 34
    assert (vk.UUID_SIZE, vk.LUID_SIZE, vk.WHOLE_SIZE) == (16, 8, 2**64 - 1)
    families = (vk.QUEUE_FAMILY_IGNORED, vk.QUEUE_FAMILY_EXTERNAL, vk.QUEUE_FAMILY_FOREIGN_EXT)
    assert families == (2**32 - 1, 2**32 - 2, 2**32 - 3)


def test_names_that_would_begin_with_a_digit_keep_a_word() -> None:
    assert int(vk.ImageType.TYPE_2D) == 1
    assert int(vk.SampleCountFlagBits.COUNT_4) == 4
    assert int(vk.ImageCreateFlagBits.CREATE_2D_ARRAY_COMPATIBLE) == 0x20


def test_unknown_flag_bits_are_kept() -> None:
    value = vk.ExternalMemoryHandleTypeFlagBits(0x80000001)
    assert int(value) == 0x80000001
    assert vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD in value
    assert int(value & ~vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD) == 0x80000000
    assert int(~vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD) == 0xFFFFFFFE
    assert int(~vk.AccessFlagBits2(1)) == 2**64 - 2
    assert ~~value == value


def test_plain_ints_do_for_flags_and_enums() -> None:
    assert vk.ExportMemoryAllocateInfo(2) == vk.ExportMemoryAllocateInfo(OPAQUE_WIN32)
    assert vk.ImageCreateInfo(format=37).format == vk.Format.R8G8B8A8_UNORM


def test_an_unset_fd_is_not_a_file_descriptor() -> None:
    assert vk.ImportMemoryFdInfoKHR().fd == -1


def export_chain() -> tuple[vk.MemoryAllocateInfo, vk.ExportMemoryAllocateInfo, vk.ExportMemoryWin32HandleInfoKHR]:
    win32 = vk.ExportMemoryWin32HandleInfoKHR(vk.SecurityAttributes("D:P", True), 0x80000001, "frames")
    export = vk.ExportMemoryAllocateInfo(OPAQUE_WIN32, win32)
    return vk.MemoryAllocateInfo(4096, 1, export), export, win32


def test_chain_gives_the_links_in_order_without_the_first() -> None:
    info, export, win32 = export_chain()
    assert list(vk.chain(info)) == [export, win32]
    assert list(vk.chain(win32)) == []


def test_find_gives_the_first_of_a_class_or_none() -> None:
    info, export, win32 = export_chain()
    assert vk.find(info, vk.ExportMemoryWin32HandleInfoKHR) is win32
    assert vk.find(info, vk.ExportMemoryAllocateInfo) is export
    assert vk.find(info, vk.ImportMemoryFdInfoKHR) is None
    assert vk.find(info, vk.MemoryAllocateInfo) is None


def test_a_chain_that_leads_back_into_itself_raises() -> None:
    info, _, win32 = export_chain()
    win32.p_next = info
    with pytest.raises(ValueError, match="leads back to VkMemoryAllocateInfo"):
        list(vk.chain(info))


def test_allowed_chains_are_those_of_the_registry() -> None:
    allowed = vk.CHAIN_ALLOWED["VkMemoryAllocateInfo"]
    assert {"VkExportMemoryWin32HandleInfoKHR", "VkImportMemoryFdInfoKHR", "VkMemoryDedicatedAllocateInfo"} <= allowed
    assert "VkImportMemoryZirconHandleInfoFUCHSIA" in allowed, "out of scope, and still listed"
    assert "VkExternalMemoryBufferCreateInfo" not in allowed
    assert vk.CHAIN_ALLOWED["VkExportMemoryWin32HandleInfoKHR"] == frozenset()
    assert set(vk.CHAIN_ALLOWED) == {cls.C_NAME for cls in CHAINABLE}


def test_commands_have_their_parameters_and_results() -> None:
    command = vk.COMMANDS["vkGetMemoryWin32HandleKHR"]
    assert [p.c_type for p in command.params] == ["VkDevice", "const VkMemoryGetWin32HandleInfoKHR*", "HANDLE*"]
    assert [p.name for p in command.params] == ["device", "get_win32_handle_info", "handle"]
    assert command.success_codes == (vk.Result.SUCCESS,)
    assert vk.Result.ERROR_TOO_MANY_OBJECTS in command.error_codes
    allocate = vk.COMMANDS["vkAllocateMemory"]
    assert vk.Result.ERROR_INVALID_EXTERNAL_HANDLE in allocate.error_codes
    assert [p.optional for p in allocate.params] == [False, False, True, False]
    assert vk.COMMANDS["vkMapMemory2"].aliases == ("vkMapMemory2KHR",)
    assert all(name == command.c_name for name, command in vk.COMMANDS.items())


def test_all_is_what_is_visible() -> None:
    visible = {
        name
        for name, value in vars(vk).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType) and name != "TYPE_CHECKING"
    }
    assert visible == set(vk.__all__) == set(NAMED)
    assert set(vk.__all__) < set(dir(vk))
    assert len(vk.__all__) == len(set(vk.__all__))


@pytest.mark.parametrize("module", ["enums", "flags", "structs"])
def test_what_type_checkers_read_is_what_is_imported(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stubs are Python, too: executed, they make the same classes."""
    stub = Path(vk.__file__).with_name("_generated") / f"{module}.pyi"
    typed_module = types.ModuleType("stubs")
    monkeypatch.setitem(sys.modules, "stubs", typed_module)
    stubs: dict[str, Any] = vars(typed_module)
    exec(compile(stub.read_text("utf-8").replace(": ...", ": pass"), str(stub), "exec"), stubs)
    imported = importlib.import_module(f"extmem.vk._generated.{module}")
    assert stubs["__all__"] == imported.__all__ and set(stubs["__all__"]) < set(dir(imported))
    for name in stubs["__all__"]:
        cls, typed = getattr(imported, name), stubs[name]
        assert (cls.__name__, cls.__qualname__) == (typed.__name__, typed.__qualname__)
        assert inspect.getdoc(cls) == inspect.getdoc(typed)
        assert cls is getattr(vk, name) and cls.__module__ == imported.__name__
        if issubclass(cls, Enum):
            assert {n: int(m) for n, m in cls.__members__.items()} == {n: int(m) for n, m in typed.__members__.items()}
            assert [m.name for m in cls] == [m.name for m in typed] and cls.__base__ is typed.__base__
        else:
            assert cls.C_NAME == typed.C_NAME and names_of(cls) == names_of(typed)
            assert getattr(cls, "S_TYPE", None) == getattr(typed, "S_TYPE", None)
            shown = [dict(inspect.signature(one).parameters) for one in (cls, typed)]
            assert {n: p.default for n, p in shown[0].items()} == {n: p.default for n, p in shown[1].items()}


def test_threads_that_use_a_name_first_get_one_class() -> None:
    program = """
import threading
from extmem import vk
barrier, found = threading.Barrier(8), []
def use():
    barrier.wait(30)
    found.append((vk.Format, vk.AccessFlagBits2KHR, vk.ImageCreateInfo))
threads = [threading.Thread(target=use) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(30)
assert len(found) == 8 and len(set(found)) == 1, found
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_a_name_that_the_registry_lacks_is_no_attribute() -> None:
    for module in (vk, importlib.import_module("extmem.vk._generated.flags")):
        with pytest.raises(AttributeError, match="NoSuchBits"):
            module.NoSuchBits  # noqa: B018


def test_importing_vk_does_not_load_cffi_and_abi_is_loaded_on_use() -> None:
    program = (
        "import sys; from extmem import vk; loaded = set(sys.modules)\n"
        "print(sorted(m for m in loaded if 'cffi' in m or m.endswith(('_abi', '.abi', 'marshal')) and 'extmem' in m))\n"
        "print(vk.abi.to_c(vk.Extent3D(1, 2, 3)).cdata.depth)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split("\n")[:2] == ["[]", "3"], done.stderr


def test_other_names_are_not_attributes() -> None:
    with pytest.raises(AttributeError, match="no_such_word"):
        vk.no_such_word  # type: ignore[attr-defined]  # noqa: B018  # the test is that it fails
