"""Scenarios for plain memory: creating, importing once, twice and very often, and importing after a refused import."""

from __future__ import annotations

from extmem import vk
from extmem.errors import ExtmemError, RuleViolation
from extmem.testing.conformance._case import READ_WRITE, Case, Family, expect

__all__ = [
    "create_named",
    "create_win32",
    "exporter_closes_first",
    "import_multiple_times",
    "import_twice",
    "refused_import_keeps_the_handle",
]


def create_win32(case: Case) -> None:
    """Export with VkExportMemoryWin32HandleInfoKHR (no attributes, read and write, no name) and import once.

    The memory is not dedicated, even in the dedicated variant, as in the Vulkan conformance tests. Those chain the
    struct also to KMT exports, which breaks VUID-VkExportMemoryWin32HandleInfoKHR-handleTypes-00657: a device with
    checks refuses that, one without checks ignores the struct.
    """
    buffer = case.buffer(case.exporter)
    win32 = vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, None)
    if case.family is Family.WIN32_KMT and case.exporter.check == "raise":
        try:
            case.allocate(buffer, win32=win32, alone=False)
        except RuleViolation as error:
            rule = "VUID-VkExportMemoryWin32HandleInfoKHR-handleTypes-00657"
            expect(rule in error.vuids, f"{rule} is broken, and the device reports {error.vuids}")
        else:
            expect(False, "a device that checks must refuse VkExportMemoryWin32HandleInfoKHR for a KMT export")
        memory = case.allocate(buffer, alone=False)
    else:
        memory = case.allocate(buffer, win32=win32, alone=False)
    data = case.data(buffer.requirements.size)
    if case.can_look(memory):
        case.write(memory, data)
    handle = case.handle(memory)
    imported = case.import_memory(case.buffer(case.importer), handle, alone=False)
    expect(imported is not memory, "an import must make a memory object of its own")
    if not case.can_look(memory, imported):
        return
    case.expect_bytes(data, importer=imported, exporter=memory)
    for writer in (imported, memory):
        data = case.data(buffer.requirements.size)
        case.write(writer, data)
        case.expect_bytes(data, importer=imported, exporter=memory)


def create_named(case: Case) -> None:
    """Export under a name; import by the name, by the name in upper case, and by handle: all show one payload."""
    name = case.name()
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer, win32=vk.ExportMemoryWin32HandleInfoKHR(None, READ_WRITE, name))
    data = case.data(buffer.requirements.size)
    if case.can_look(memory):
        case.write(memory, data)
    by_name = case.import_memory(case.buffer(case.importer), None, name=name)
    by_upper = case.import_memory(case.buffer(case.importer), None, name=name.upper())
    by_handle = case.import_memory(case.buffer(case.importer), case.handle(memory))
    if not case.can_look(memory, by_name, by_upper, by_handle):
        return
    case.expect_bytes(data, by_name=by_name, by_upper=by_upper, by_handle=by_handle)
    data = case.data(buffer.requirements.size)
    case.write(by_upper, data)
    case.expect_bytes(data, by_name=by_name, by_handle=by_handle, exporter=memory)


def import_twice(case: Case) -> None:
    """Two imports, from a handle and from its copy, are two memory objects that share the exporter's bytes."""
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    if case.can_look(memory):
        case.write(memory, data)
    handle = case.handle(memory)
    copied = case.copy(handle)
    a = case.import_memory(case.buffer(case.importer), handle)
    b = case.import_memory(case.buffer(case.importer), copied)
    expect(a is not b, "two imports must be two memory objects")
    if not case.can_look(memory, a, b):
        return
    case.expect_bytes(data, first=a, second=b)
    for writer in (a, b):
        data = case.data(buffer.requirements.size)
        case.write(writer, data)
        case.expect_bytes(data, first=a, second=b, exporter=memory)
    a.close()
    case.expect_bytes(data, second=b, exporter=memory)


def import_multiple_times(case: Case) -> None:
    """Import one export thousands of times, each freed before the next: nothing accumulates, nothing runs out."""
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(64)
    visible = case.can_look(memory)
    if visible:
        case.write(memory, data)
    handle = case.handle(memory)
    for index in range(case.repeats):
        own, copied = case.buffer(case.importer), case.copy(handle)
        imported = case.import_memory(own, copied)
        if visible and index % 256 == 0:
            case.expect_bytes(data, importer=imported)
        imported.close()
        own.close()
        copied.close()
    if visible:
        case.expect_bytes(data, exporter=memory)


def exporter_closes_first(case: Case) -> None:
    """The importer's memory, and an NT handle or an fd, keep the payload after the exporter's memory is freed."""
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    visible = case.can_look(memory)
    if visible:
        case.write(memory, data)
    handle = case.handle(memory)
    if case.family is Family.WIN32_KMT:
        # A number owns nothing: it must be imported before the exporter's memory is closed.
        imported = case.import_memory(case.buffer(case.importer), handle)
        memory.close()
    else:
        memory.close()
        imported = case.import_memory(case.buffer(case.importer), handle)
    if visible:
        case.expect_bytes(data, importer=imported)


def refused_import_keeps_the_handle(case: Case) -> None:
    """An import with another size than the exporter's is refused; the handle stays open and can be imported."""
    buffer = case.buffer(case.exporter)
    memory = case.allocate(buffer)
    data = case.data(buffer.requirements.size)
    if case.can_look(memory):
        case.write(memory, data)
    handle = case.handle(memory)
    value = int(handle)
    larger = case.sized_buffer(case.importer, buffer.requirements.size * 2)
    try:
        case.import_memory(larger, handle)
    except ExtmemError:
        pass
    else:
        expect(False, f"an import of {buffer.requirements.size} bytes as {larger.requirements.size} must be refused")
    expect(not handle.closed and int(handle) == value, f"a refused import must leave the handle open: {handle!r}")
    imported = case.import_memory(case.buffer(case.importer), handle)
    if case.can_look(memory, imported):
        case.expect_bytes(data, importer=imported)
