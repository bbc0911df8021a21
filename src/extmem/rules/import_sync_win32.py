"""vkImportSemaphoreWin32HandleKHR and vkImportFenceWin32HandleKHR: by NT handle, KMT handle or name.

A failed resolution is passed as `facts.refusal`, with the object manager's message; a memory handle in place of a
semaphore's is one. The specification forbids an import into a fence that is in use, and by fd into such a semaphore. It
has no id for the same import by Win32 handle, so that rule has an id of extmem.
"""

from __future__ import annotations

from extmem import vk
from extmem.rules import _sync_field_types  # noqa: F401  # it registers
from extmem.rules._engine import Demand, Finding, Suite, demand
from extmem.rules._field_types import malformed, wrong_struct
from extmem.rules._sync_import import (
    ImportSync,
    common_rows,
    in_use,
    permanence_rows,
    same_device,
    same_semaphore_rows,
)
from extmem.rules._sync_types import FENCE, SEMAPHORE, SyncKind, sync_type_in
from extmem.rules._text import bits_of, handle_text, is_invalid_handle
from extmem.rules.sync_facts import ImportSyncFacts
from extmem.rules.violation import Violation

__all__ = ["check_import_fence_win32_handle", "check_import_semaphore_win32_handle"]

IMPORT_SEMAPHORE_WIN32: Suite[ImportSync] = Suite("vkImportSemaphoreWin32HandleKHR")
IMPORT_FENCE_WIN32: Suite[ImportSync] = Suite("vkImportFenceWin32HandleKHR")

_SEMAPHORE, _FENCE = "VkImportSemaphoreWin32HandleInfoKHR", "VkImportFenceWin32HandleInfoKHR"


def _another(call: ImportSync, where: str, what: str) -> Finding | None:
    """Return a finding if the payload is not one of the handle type: another kind of object, or exported otherwise."""
    payload, kind = call.payload, call.kind
    if payload is None:
        return None
    if payload.object_kind != kind.word:
        remedy = f"Import it with Import{payload.object_kind.capitalize()}Win32HandleInfoKHR."
        return where, f"{what} is a shared {payload.object_kind}, not a {kind.word}", remedy
    if not payload.made_by_vulkan or not payload.handle_types or int(payload.handle_types) & call.handle_type:
        return None
    exported = kind.text(payload.handle_types)
    problem = f"{what} was exported as {exported}, not {kind.text(call.handle_type)}"
    return where, problem, f"Import it as {exported}."


def _name_leads_nowhere(call: ImportSync) -> Finding | None:
    """Without a handle, the name refers to a semaphore or fence of this type."""
    if call.handled:
        return None
    where, word, name = f"{call.where}.name", call.kind.word, call.info.name
    if name is None:
        return where, "neither handle nor name is given", f"Give the name of a shared {word}, or a handle."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            where,
            f"the name {name!r} does not refer to a {word}: {refusal.status}: {refusal.detail.rstrip('.')}",
            f"Open the name of a shared {word}, from a process that is allowed to open it.",
        )
    return _another(call, where, f"the object named {name!r}")


def _handle_leads_nowhere(call: ImportSync) -> Finding | None:
    """Without a name, the handle refers to a semaphore or fence of this type."""
    if call.named:
        return None
    where, word, handle = f"{call.where}.handle", call.kind.word, call.info.handle
    if not call.handled:
        return where, "neither handle nor name is given", f"Give a handle, or the name of a shared {word}."
    text = handle_text(handle)
    if is_invalid_handle(handle):
        return where, f"it is {text}", "Check the call that returned the handle: it reported a failure."
    refusal = call.facts.refusal
    if refusal is not None:
        return (
            where,
            f"{text} is not a valid {call.kind.text(call.handle_type)} handle of a {word} in this process: "
            f"{refusal.status}: {refusal.detail.rstrip('.')}",
            "Use a handle that is open in this process; numbers from another process must be duplicated first.",
        )
    return _another(call, where, f"the object behind {text}")


def _both(call: ImportSync) -> str:
    return handle_text(call.info.handle) if call.handled and call.named else ""


def _name_of_no_nt_type(call: ImportSync) -> str:
    if not call.named or call.handle_type & call.kind.nt_types or call.handle_type not in call.kind.defined:
        return ""
    return call.kind.text(call.handle_type)


def _rows(
    kind: SyncKind, struct: str, one_type: str, both: str, name_type: str, name: str, handle: str
) -> tuple[Demand, ...]:
    """Return the rows on handle type, handle and name; the arguments are the last parts of their ids."""
    nt_types = " or ".join(kind.text(bit) for bit in bits_of(kind.nt_types))
    return (
        sync_type_in(
            kind,
            f"{struct}-{one_type}",
            kind.win32_types,
            f"a Win32 handle type of a {kind.word}",
            f"Use one of {kind.text(kind.win32_types)}, or the import struct for that type.",
            defined=False,
        ),
        Demand(
            f"{struct}-{both}",
            _both,
            "{call.where}",
            "both handle {found} and name {call.info.name!r} are given",
            "Give the handle or the name, and None for the other.",
        ),
        Demand(
            f"{struct}-{name_type}",
            _name_of_no_nt_type,
            "{call.where}.name",
            "{found} handles have no names, but name is {call.info.name!r}",
            f"Use {nt_types} to import by name, or pass name=None.",
        ),
        Demand(f"{struct}-{name}", _name_leads_nowhere),
        Demand(f"{struct}-{handle}", _handle_leads_nowhere),
    )


demand(
    IMPORT_SEMAPHORE_WIN32,
    *common_rows(SEMAPHORE, "vkImportSemaphoreWin32HandleKHR", _SEMAPHORE),
    *_rows(
        SEMAPHORE,
        _SEMAPHORE,
        "handleType-01140",
        "handle-01469",
        "handleType-01466",
        "handleType-01467",
        "handleType-01468",
    ),
    same_device(f"{_SEMAPHORE}-handle-01542", "{call.where}.handle", handled=True),
    same_device(f"{_SEMAPHORE}-name-01543", "{call.where}.name", named=True),
    *same_semaphore_rows(f"{_SEMAPHORE}-handleType-03261", f"{_SEMAPHORE}-handleType-03262"),
    *permanence_rows(SEMAPHORE, timeline=f"{_SEMAPHORE}-flags-03322"),
    in_use("EXTMEM-vkImportSemaphoreWin32HandleKHR-semaphore-inUse", "vkImportSemaphoreWin32HandleKHR", SEMAPHORE),
)
demand(
    IMPORT_FENCE_WIN32,
    *common_rows(FENCE, "vkImportFenceWin32HandleKHR", _FENCE),
    *_rows(
        FENCE, _FENCE, "handleType-01457", "handle-01462", "handleType-01459", "handleType-01460", "handleType-01461"
    ),
    same_device(f"{_FENCE}-handle-01539", "{call.where}.handle", handled=True),
    same_device(f"{_FENCE}-name-01540", "{call.where}.name", named=True),
    in_use("vkImportFenceWin32HandleKHR-fence-04448", "vkImportFenceWin32HandleKHR", FENCE),
)


def check_import_semaphore_win32_handle(
    info: vk.ImportSemaphoreWin32HandleInfoKHR, facts: ImportSyncFacts
) -> list[Violation]:
    """Return all rules that this vkImportSemaphoreWin32HandleKHR would break."""
    where = "ImportSemaphoreWin32HandleInfoKHR"
    return (
        wrong_struct(info, vk.ImportSemaphoreWin32HandleInfoKHR, "vkImportSemaphoreWin32HandleKHR.info")
        or malformed([(where, info)])
        or IMPORT_SEMAPHORE_WIN32.run(ImportSync(info, SEMAPHORE, facts, where), 0)
    )


def check_import_fence_win32_handle(info: vk.ImportFenceWin32HandleInfoKHR, facts: ImportSyncFacts) -> list[Violation]:
    """Return all rules that this vkImportFenceWin32HandleKHR would break."""
    where = "ImportFenceWin32HandleInfoKHR"
    return (
        wrong_struct(info, vk.ImportFenceWin32HandleInfoKHR, "vkImportFenceWin32HandleKHR.info")
        or malformed([(where, info)])
        or IMPORT_FENCE_WIN32.run(ImportSync(info, FENCE, facts, where), 0)
    )
