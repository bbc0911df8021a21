"""Size, alignment and every field's offset: cffi's layout is compared with that of a C compiler from the real headers.

The committed layout (`tests/fixtures/layout/layout.json`, written by `python -m codegen layout` only) is used if there
is no compiler. If there are a compiler and headers, it is compiled again.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from codegen import layout, registry, scope
from extmem.vk import abi
from extmem.vk._generated.marshal import FIELDS
from tests.conftest import refused_skip

ROOT = Path(__file__).resolve().parents[3]


def cffi_view(names: list[str]) -> dict[str, dict[str, Any]]:
    ffi = abi.ffi
    view = {}
    for name in names:
        members = {m: [f.offset, ffi.sizeof(f.type)] for m, f in ffi.typeof(name).fields}
        view[name] = {"size": ffi.sizeof(name), "align": ffi.alignof(name), "fields": members}
    return view


def without_source(found: layout.Layout) -> dict[str, dict[str, Any]]:
    return {name: {k: v for k, v in row.items() if k != "from"} for name, row in found.items()}


NAMES = [*FIELDS, *(name for group in scope.C_STRUCTS for name in group.names), "SECURITY_ATTRIBUTES"]


@pytest.fixture(scope="module")
def kept() -> dict[str, dict[str, Any]]:
    return without_source(layout.read_fixture(ROOT))


def test_the_kept_answer_covers_every_struct(kept: dict[str, dict[str, Any]]) -> None:
    assert set(kept) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_cffi_lays_structs_out_as_the_kept_answer(name: str, kept: dict[str, dict[str, Any]]) -> None:
    assert cffi_view([name])[name] == kept[name]


def test_the_compiler_of_this_machine_agrees(kept: dict[str, dict[str, Any]]) -> None:
    if not layout.available():
        pytest.skip("no C compiler, or no Vulkan headers in /usr/include/vulkan")
    asked = layout.ask_compiler(registry.load(), ROOT)
    assert without_source(asked) == kept
    assert sum(row["from"] == "headers" for row in asked.values()) >= 60, "most must come from the real headers"


def test_a_wrong_width_would_be_found(kept: dict[str, dict[str, Any]]) -> None:
    """The planted fault: with a DWORD of 64 bits, as `unsigned long` is on Linux, the comparison fails."""
    from cffi import FFI

    ffi = FFI()
    ffi.cdef("typedef struct { uint32_t s; void *n; void *a; uint64_t dwAccess; const uint16_t *name; } Wrong;")
    wrong = {m: [f.offset, ffi.sizeof(f.type)] for m, f in ffi.typeof("Wrong").fields}
    right = kept["VkExportMemoryWin32HandleInfoKHR"]["fields"]
    assert wrong["dwAccess"] != right["dwAccess"]
    assert right["dwAccess"] == [24, 4]


def test_a_changed_answer_would_be_found(kept: dict[str, dict[str, Any]]) -> None:
    bent = copy.deepcopy(kept)
    bent["VkMemoryAllocateInfo"]["fields"]["memoryTypeIndex"][0] += 4
    assert cffi_view(list(bent)) != bent
    assert cffi_view(list(kept)) == kept


def test_without_a_compiler_the_test_of_it_is_skipped_and_that_fails_where_one_is_expected(
    kept: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "available", lambda: "")
    with pytest.raises(pytest.skip.Exception) as skipped:
        test_the_compiler_of_this_machine_agrees(kept)
    assert refused_skip(str(skipped.value), {"vulkan"}) is None
    assert "contains cc" in str(refused_skip(str(skipped.value), {"vulkan", "cc"}))


@pytest.mark.parametrize("name", FIELDS)
def test_the_field_table_names_every_member(name: str) -> None:
    members = {m for m, _ in abi.ffi.typeof(name).fields}
    rows = FIELDS[name]
    assert {r.c_name for r in rows} | {r.counter for r in rows if r.counter} == members - {"sType", "pNext"}
