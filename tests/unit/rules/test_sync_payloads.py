"""Which payload, which creator and which semaphore type the rules of semaphores and fences are about."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from extmem import vk
from extmem.rules import Violation
from tests.rules.sync_world import (
    BINARY,
    DEVICE,
    EXPORTABLE,
    TEMPORARY,
    TIMELINE,
    F,
    S,
    can,
    create,
    get_fd,
    get_fence_fd,
    get_win32,
    import_fd,
    import_win32,
    of_direct3d,
    payload,
    timeline,
)
from tests.rules.world import GPU_UUID, GROUP, OTHER_UUID

Export = vk.ExportSemaphoreCreateInfo


def ends(found: list[Violation]) -> set[str]:
    """Return the last parts of the ids."""
    return {violation.vuid.rpartition("-")[2] for violation in found}


def test_S14_the_exporter_decides_the_export_types_of_an_imported_payload() -> None:
    imported: dict[str, Any] = {"import_type": int(S.OPAQUE_FD)}
    # The importing semaphore may have been created for other types, or for none.
    assert get_fd(S.OPAQUE_FD, export_types=int(S.OPAQUE_FD), **imported) == []
    (refused,) = get_fd(S.SYNC_FD, export_types=int(S.OPAQUE_FD), **imported)
    assert refused.vuid.endswith("01132") and "whose exporter was created for export as OPAQUE_FD" in refused.problem
    assert "that of the importing one is not used" in refused.remedy
    (own,) = get_fd(S.SYNC_FD, export_types=int(S.OPAQUE_FD))
    assert "was created for export as OPAQUE_FD, not as SYNC_FD" in own.problem


def test_S14_without_a_descriptor_nothing_is_known_about_the_exporter() -> None:
    assert get_fd(S.OPAQUE_FD, export_types=None, import_type=int(S.OPAQUE_FD)) == []
    assert import_fd(S.OPAQUE_FD, TEMPORARY, into=TIMELINE) == []
    assert import_win32(S.OPAQUE_WIN32, handle=0x1C, into=TIMELINE) == []


def test_the_device_is_asked_which_imported_types_the_asked_type_is_exported_from() -> None:
    """The answer for SYNC_FD contains OPAQUE_FD: so a payload imported as OPAQUE_FD is exported as SYNC_FD."""
    one_way = replace(DEVICE, binary_types=can(3, S.SYNC_FD, again=int(S.OPAQUE_FD)) | can(3, S.OPAQUE_FD))
    known: dict[str, Any] = {"device": one_way, "import_type": int(S.OPAQUE_FD)}
    assert get_fd(S.SYNC_FD, **known) == []
    assert ends(get_fd(S.OPAQUE_FD, **known)) == {"01133"}


def test_S64_the_export_types_are_those_of_the_semaphores_own_type() -> None:
    apart = replace(DEVICE, binary_types=can(EXPORTABLE, S.OPAQUE_FD), timeline_types=can(0, S.OPAQUE_FD))
    assert create(Export(S.OPAQUE_FD), facts=apart) == []
    (refused,) = create(timeline(), Export(S.OPAQUE_FD), facts=apart)
    assert "a timeline semaphore cannot be exported as OPAQUE_FD" in refused.problem


def test_types_are_compared_with_every_answer_of_the_device() -> None:
    first = can(EXPORTABLE, S.OPAQUE_WIN32) | can(EXPORTABLE, S.D3D12_FENCE, compatible=int(S.OPAQUE_WIN32))
    assert ends(create(Export(S.OPAQUE_WIN32 | S.D3D12_FENCE), facts=replace(DEVICE, binary_types=first))) == {"01124"}
    assert create(Export(S.D3D12_FENCE), facts=replace(DEVICE, binary_types=first)) == []


@pytest.mark.parametrize("into", [BINARY, TIMELINE])
def test_the_exporters_type_decides_about_a_temporary_import(into: Any) -> None:
    """A Direct3D 12 fence is imported into semaphores of both types; a timeline of Vulkan never temporarily."""
    known = payload(S.D3D12_FENCE, True)
    assert ends(import_win32(S.D3D12_FENCE, TEMPORARY, name="frames", into=into, known=known)) == {"03322"}
    foreign = of_direct3d(DEVICE.luid)
    assert import_win32(S.D3D12_FENCE, TEMPORARY, name="frames", into=into, known=foreign) == []


def test_a_payload_of_any_device_of_the_group_is_imported() -> None:
    group = replace(DEVICE, device=GROUP)
    assert import_fd(device=group, known=payload(device_uuid=OTHER_UUID)) == []
    assert import_fd(device=group, known=payload(device_uuid=GPU_UUID)) == []
    assert ends(import_fd(device=DEVICE, known=payload(device_uuid=OTHER_UUID))) == {"01544"}


def test_what_vulkan_exported_is_imported_as_it_was_exported() -> None:
    assert ends(import_win32(S.OPAQUE_WIN32, handle=0x1C, known=payload(S.OPAQUE_FD))) == {"01468"}
    assert ends(import_win32(S.OPAQUE_WIN32, name="frames", known=payload(S.OPAQUE_FD))) == {"01467"}
    assert import_win32(S.OPAQUE_WIN32, handle=0x1C, known=of_direct3d(DEVICE.luid)) == []


def test_an_invalid_handle_is_reported() -> None:
    (refused,) = import_win32(S.OPAQUE_WIN32, handle=-1)
    assert refused.problem == "it is INVALID_HANDLE_VALUE"


def test_S61_types_of_opaque_payloads_are_compared_and_those_of_others_not() -> None:
    assert ends(import_win32(S.OPAQUE_WIN32_KMT, handle=2, into=TIMELINE, known=payload(S.OPAQUE_WIN32_KMT))) == {
        "03262"
    }
    assert import_win32(S.D3D12_FENCE, handle=0x1C, into=BINARY, known=payload(S.D3D12_FENCE, True)) == []


def test_S5_a_copy_needs_a_signal_unless_another_process_may_have_given_it() -> None:
    assert ends(get_fd(S.SYNC_FD, signaled=False)) == {"01135", "03254"}
    assert get_fd(S.SYNC_FD, signaled=None) == []
    assert ends(get_fence_fd(F.SYNC_FD, signaled=False)) == {"01454"}
    assert get_fence_fd(F.SYNC_FD, signaled=None) == []


def test_S12_one_sentence_tells_what_to_do_instead_of_copying_a_timeline() -> None:
    sentence = "Export a binary semaphore, or signal one after a wait for the timeline's value."
    (created,) = create(timeline(), Export(S.SYNC_FD))
    (exported,) = get_fd(S.SYNC_FD, timeline=True)
    assert created.remedy == exported.remedy == sentence


def test_S20_an_nt_handle_is_exported_once_for_each_type() -> None:
    known: dict[str, Any] = {"export_types": int(S.OPAQUE_WIN32 | S.D3D12_FENCE)}
    assert ends(get_win32(S.OPAQUE_WIN32, exported_nt_types=int(S.OPAQUE_WIN32), **known)) == {"01127"}
    assert get_win32(S.D3D12_FENCE, exported_nt_types=int(S.OPAQUE_WIN32), **known) == []
