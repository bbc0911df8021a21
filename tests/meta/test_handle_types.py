"""Below the public API, handle types of memory, semaphores and fences have types of their own, and not int."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.meta.tools import SOURCE, python_files, reported_by_mypy

NAMED = re.compile(r"(\w+_)?(handle_types?|export_types|nt_types)")
TYPED = re.compile(r"(Memory|Semaphore|Fence|Sync)HandleType")
PUBLIC = {
    "api/device.py": "takes what programs pass",
    "api/fence.py": "takes what programs pass",
    "api/semaphore.py": "takes what programs pass",
    "api/sync_device.py": "takes what programs pass",
    "api/timeline.py": "takes what programs pass",
    "cli/_bench/passing.py": "is a program",
    "core/allocating_arrays.py": "takes what `Device.allocate` got, and checks it",
    "core/arguments.py": "checks arguments, and returns handle types",
    "core/exporting.py": "`export_handle` and `win32_handle` take the enum, which they write into structs",
    "core/fd_choices.py": "takes and returns the enum",
    "core/import_source.py": "`look_at` takes what a program passed, before the rules check it",
    "core/queries.py": "takes what programs pass, before the rules check it",
    "core/sync_facts.py": "asks by the enums",
    "core/sync_source.py": "takes what a program passed, before the rules check it",
    "core/sync_creating.py": "takes what `Device.timeline` got, and checks it",
    "core/sync_exporting.py": "`export_handle` takes what programs pass, and checks it",
    "raw.py": "takes what programs pass",
    "rules/handle_properties.py": "takes what programs pass, and checks it",
    "sharing/descriptor/descriptor.py": "programs make descriptors",
    "sharing/descriptor/sync.py": "programs make descriptors",
    "sharing/descriptor/wire.py": "the numbers of the wire format",
}
"""Modules that have handle types as they come from a program or from another process, and why."""

PROGRAM = """\
from extmem import vk
from extmem.vk.handle_types import FENCE_OPAQUE_FD, FENCE_SYNC_FD, FenceHandleType
from extmem.vk.handle_types import HOST_ALLOCATION, OPAQUE_FD, MemoryHandleType, union
from extmem.vk.handle_types import SEMAPHORE_D3D12_FENCE, SEMAPHORE_OPAQUE_FD, SemaphoreHandleType, SyncHandleType


def take(handle_type: MemoryHandleType) -> None: ...
def take_semaphore(handle_type: SemaphoreHandleType) -> None: ...
def take_fence(handle_type: FenceHandleType) -> None: ...
def take_either(handle_type: SyncHandleType) -> None: ...


take(OPAQUE_FD)
take(union(OPAQUE_FD, HOST_ALLOCATION))
take(MemoryHandleType(8))
take_semaphore(union(SEMAPHORE_OPAQUE_FD, SEMAPHORE_D3D12_FENCE))
take_fence(union(FENCE_OPAQUE_FD, FENCE_SYNC_FD))
take_either(SEMAPHORE_OPAQUE_FD)
take_either(FENCE_OPAQUE_FD)
"""
REFUSED = {
    "take(8)": ("int", "MemoryHandleType"),
    "take(OPAQUE_FD | HOST_ALLOCATION)": ("int", "MemoryHandleType"),
    "take(SEMAPHORE_D3D12_FENCE)": ("SemaphoreHandleType", "MemoryHandleType"),
    "take(vk.ExternalMemoryHandleTypeFlagBits.OPAQUE_FD)": ("ExternalMemoryHandleTypeFlagBits", "MemoryHandleType"),
    "take_semaphore(FENCE_SYNC_FD)": ("FenceHandleType", "SemaphoreHandleType"),
    "take_semaphore(16)": ("int", "SemaphoreHandleType"),
    "take_fence(SEMAPHORE_OPAQUE_FD)": ("SemaphoreHandleType", "FenceHandleType"),
    "take_fence(OPAQUE_FD)": ("MemoryHandleType", "FenceHandleType"),
    "take_either(OPAQUE_FD)": ("MemoryHandleType", "SemaphoreHandleType | FenceHandleType"),
}
"""Calls with another handle type than the function takes; the types that mypy reports: that of the argument, and that
of the parameter."""


def untyped(package: Path) -> list[str]:
    """Return the parameters and fields below `package` that have the name of a handle type, and no such type."""
    found = []
    for path in python_files(package):
        name = path.relative_to(package).as_posix()
        if name.startswith(("testing/", "vk/_generated/")) or name in PUBLIC:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.arg):
                what = node.arg
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                what = node.target.id
            else:
                continue
            if NAMED.fullmatch(what) and node.annotation and not TYPED.search(ast.unparse(node.annotation)):
                found.append(f"{name}: {what}")
    return found


def test_handle_types_have_their_type() -> None:
    assert not untyped(SOURCE), "annotate them with a type of `extmem.vk.handle_types`"


def test_planted_plain_numbers_are_found(tmp_path: Path) -> None:
    (tmp_path / "devices").mkdir()
    source = "def take(handle_type: {0}, other: int) -> None: ...\nexport_handle_types: {0} = {0}(0)\n"
    (tmp_path / "devices" / "a.py").write_text(source.format("int"))
    (tmp_path / "devices" / "b.py").write_text(source.format("MemoryHandleType"))
    (tmp_path / "raw.py").write_text(source.format("int"))
    (tmp_path / "devices" / "c.py").write_text(source.format("SemaphoreHandleType"))
    (tmp_path / "devices" / "d.py").write_text(source.format("SyncHandleType"))
    assert sorted(untyped(tmp_path)) == ["devices/a.py: export_handle_types", "devices/a.py: handle_type"]


@pytest.mark.linux_only("mypy is not installed in the test bed for Windows")
@pytest.mark.slow("mypy reads the generated structures first")
def test_mypy_refuses_other_numbers(tmp_path: Path) -> None:
    assert reported_by_mypy(tmp_path, PROGRAM) == ["Success: no issues found in 1 source file"]
    *found, total = reported_by_mypy(tmp_path, PROGRAM + "\n".join(REFUSED))
    for line, (given, expected) in zip(found, REFUSED.values(), strict=True):
        assert f'incompatible type "{given}"; expected "{expected}"' in line
    assert total.startswith(f"Found {len(REFUSED)} errors in 1 file")
