"""Explanations: everything has one, examples are real, and an unknown name gets a hint."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from msgspec.structs import replace

from extmem import errors, objects, rules, vk
from extmem.rules import ledger
from extmem.rules._error_texts import CLASSES, RESULTS, STATUSES
from extmem.rules._examples_submit import SUBMIT
from extmem.rules._examples_sync import SYNC
from extmem.rules.explain import EXAMPLES, explain, topics
from extmem.rules.violation import link_to
from tests.rules import world
from tests.rules.world import ADDRESS, BAD_HANDLE, GPU, OLD_DRIVER_UUID, OTHER_GPU, T

OF_MEMORY = [vuid for vuid in EXAMPLES if vuid not in SUBMIT and vuid not in SYNC]
"""The others are run by test_explain_submit.py and test_explain_sync.py."""
HANDLE, NUMBER, FD, DMA_BUF, FREED = 0x1C, 0x40000002, 7, 8, ADDRESS + 0x10000
IMAGE, NARROW_IMAGE, BUFFER, OTHER_BUFFER, MEMORY, TEXTURE, HOST_MEMORY = 0xA, 0xAA, 0xB, 0xBB, 0x3, 0x4, 0x5
MEMORIES = {
    MEMORY: world.memory(export_handle_types=int(T.OPAQUE_WIN32)),
    TEXTURE: world.memory(import_handle_type=int(T.D3D11_TEXTURE)),
    HOST_MEMORY: world.memory(import_handle_type=int(T.HOST_ALLOCATION)),
}


class Desk:
    """Takes the place of a device: calls the rules, and keeps their violations."""

    def __init__(self, facts: rules.DeviceFacts, found: list[rules.Violation], features: int, exported: T) -> None:
        self.facts, self.found, self.features, self.exported = facts, found, features, exported
        self.asked = 0

    def allocate_memory(self, info: vk.MemoryAllocateInfo) -> None:
        win32 = vk.find(info, vk.ImportMemoryWin32HandleInfoKHR)
        fd = vk.find(info, vk.ImportMemoryFdInfoKHR)
        host = vk.find(info, vk.ImportMemoryHostPointerInfoEXT)
        kind = T(next((s.handle_type for s in (win32, fd, host) if s is not None), 0))
        target = self._target(info, kind)
        refused = win32 is not None and win32.handle == 0x1234
        pointer = host.host_pointer if host is not None else None
        facts = rules.AllocateFacts(
            self.facts,
            dedicated=target,
            payload=None if refused or host is not None else self._payload(kind, target),
            refusal=BAD_HANDLE if refused else None,
            capabilities={int(kind): rules.ExternalMemoryFacts(self.features, 0, int(kind))},
            host_memory_type_bits=0b10 if pointer else None,
            host_range_mapped=None if pointer is None else pointer != FREED,
        )
        self.found += rules.check_allocate_memory(info, facts)

    def _target(self, info: vk.MemoryAllocateInfo, kind: T) -> rules.ResourceFacts | None:
        dedicated = vk.find(info, vk.MemoryDedicatedAllocateInfo)
        if dedicated is None:
            return None
        if dedicated.image:
            return world.image(world.image_info(kind, 32 if dedicated.image == NARROW_IMAGE else 64))
        made = world.buffer_info(kind)
        if dedicated.buffer == OTHER_BUFFER:
            made.usage = vk.BufferUsageFlagBits.STORAGE_BUFFER
        return world.buffer(made)

    def _payload(self, kind: T, target: rules.ResourceFacts | None) -> rules.PayloadFacts:
        if kind in (T.D3D12_HEAP, T.DMA_BUF):
            return world.foreign(kind, 0b10)
        if target is None:
            return world.payload(kind)
        made = world.image_info(kind) if target.kind == "image" else world.buffer_info(kind)
        return world.payload(kind, dedicated=target.kind, dedicated_info=made)

    def get_memory_win32_handle(self, info: vk.MemoryGetWin32HandleInfoKHR) -> Desk:
        known = replace(MEMORIES[MEMORY], exported_nt_types=self.asked)
        self.found += rules.check_get_memory_win32_handle(info, self.facts, known)
        self.asked |= int(info.handle_type)
        return self

    def duplicate(self) -> Desk:
        return self

    def get_memory_fd(self, info: vk.MemoryGetFdInfoKHR) -> None:
        known = replace(MEMORIES[MEMORY], export_handle_types=int(T.OPAQUE_FD))
        self.found += rules.check_get_memory_fd(info, self.facts, known)

    def get_memory_win32_handle_properties(self, kind: T, handle: int) -> vk.MemoryWin32HandlePropertiesKHR:
        self.found += rules.check_memory_win32_handle_properties(kind, handle, self.facts)
        return vk.MemoryWin32HandlePropertiesKHR(0b10)

    def get_memory_fd_properties(self, kind: T, fd: int) -> vk.MemoryFdPropertiesKHR:
        self.found += rules.check_memory_fd_properties(kind, fd, self.facts)
        return vk.MemoryFdPropertiesKHR(0b10)

    def get_memory_host_pointer_properties(self, kind: T, address: int) -> vk.MemoryHostPointerPropertiesEXT:
        mapped = address != FREED
        self.found += rules.check_memory_host_pointer_properties(kind, address, self.facts, mapped=mapped)
        return vk.MemoryHostPointerPropertiesEXT(0b10)

    def get_physical_device_external_buffer_properties(
        self, info: vk.PhysicalDeviceExternalBufferInfo
    ) -> vk.ExternalBufferProperties:
        self.found += rules.check_external_buffer_info(info)
        return vk.ExternalBufferProperties(vk.ExternalMemoryProperties(self.features))


def run(source: str, vuid: str) -> set[str]:
    """Return the violations of an example. Its last line may be a struct, which is checked as in its call."""
    found: list[rules.Violation] = []
    cannot_import = vuid.endswith(("09861", "09862", "01747"))
    features = 0 if cannot_import else 6

    def desk(facts: rules.DeviceFacts) -> Desk:
        return Desk(facts, found, features, T.OPAQUE_WIN32)

    names: dict[str, Any] = {
        "vk": vk, "T": T, "size": world.SIZE, "index": world.TYPE, "handle": HANDLE, "number": NUMBER, "fd": FD,
        "dma_buf": DMA_BUF, "address": ADDRESS, "freed_address": FREED, "memory": MEMORY, "texture": TEXTURE,
        "host_memory": HOST_MEMORY, "image": IMAGE, "narrow_image": NARROW_IMAGE, "buffer": BUFFER,
        "other_buffer": OTHER_BUFFER, "device": desk(GPU), "other_device": desk(OTHER_GPU),
        "updated_device": desk(replace(GPU, driver_uuid=OLD_DRIVER_UUID)),
    }  # fmt: skip
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, vuid, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), vuid, "eval"), names)
        found += violations_of(value)
    return {v.vuid for v in found}


def violations_of(value: object) -> list[rules.Violation]:
    if isinstance(value, vk.ImageMemoryBarrier):
        usage = vk.ImageUsageFlagBits.SAMPLED | vk.ImageUsageFlagBits.COLOR_ATTACHMENT
        return rules.check_image_memory_barrier(value, world.image(world.image_info(T.D3D11_TEXTURE, usage=usage)), GPU)
    if isinstance(value, vk.Win32KeyedMutexAcquireReleaseInfoKHR):
        synced = [*value.acquire_syncs, *value.release_syncs]
        return rules.check_keyed_mutex(value, [MEMORIES[m] for m in synced])  # type: ignore[index]  # ints here
    if isinstance(value, vk.MemoryMapInfo):
        return rules.check_map_memory(value, MEMORIES[value.memory])  # type: ignore[index]  # an int here
    if isinstance(value, vk.MemoryUnmapInfo):
        return rules.check_unmap_memory(value, MEMORIES[value.memory])  # type: ignore[index]  # an int here
    return []


@pytest.mark.parametrize("vuid", OF_MEMORY)
def test_the_wrong_example_breaks_the_rule_and_the_right_one_none(vuid: str) -> None:
    wrong, right = EXAMPLES[vuid]
    assert vuid in run(wrong, vuid)
    assert run(right, vuid) == set()


def test_every_explicit_memory_rule_has_examples() -> None:
    wanted = {
        row.vuid
        for family in ("win32-memory", "fd-memory", "host")
        for row in ledger.rows(family=family)
        if row.status in ("checked", "on request") and not row.implicit
    }
    assert set(OF_MEMORY) == wanted


@pytest.mark.parametrize("topic", topics())
def test_every_topic_has_an_explanation_and_its_examples_compile(topic: str) -> None:
    explanation = explain(topic)
    assert explanation.title and explanation.text and explanation.kind
    for source in (explanation.wrong_example, explanation.right_example):
        compile(source, topic, "exec")
    assert list(explanation.to_dict()) == list(explanation.__struct_fields__)
    if explanation.kind == "rule":
        row = ledger.find(topic)
        assert (explanation.status, explanation.family, explanation.checked_by) == (
            row.status,
            row.family,
            row.checked_by,
        )
        assert row.rule in explanation.text and explanation.link == link_to(row.vuid)
    else:
        assert explanation.wrong_example and explanation.right_example


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("VK_ERROR_INVALID_EXTERNAL_HANDLE", "VK_ERROR_INVALID_EXTERNAL_HANDLE (-1000072003)"),
        ("ERROR_INVALID_EXTERNAL_HANDLE", "VK_ERROR_INVALID_EXTERNAL_HANDLE (-1000072003)"),
        ("INVALID_EXTERNAL_HANDLE", "VK_ERROR_INVALID_EXTERNAL_HANDLE (-1000072003)"),
        ("-1000072003", "VK_ERROR_INVALID_EXTERNAL_HANDLE (-1000072003)"),
        ("STATUS_OBJECT_NAME_COLLISION", "STATUS_OBJECT_NAME_COLLISION (0xC0000035)"),
        ("object_name_collision", "STATUS_OBJECT_NAME_COLLISION (0xC0000035)"),
        ("0xC0000035", "STATUS_OBJECT_NAME_COLLISION (0xC0000035)"),
        ("3221225525", "STATUS_OBJECT_NAME_COLLISION (0xC0000035)"),
        ("-1073741771", "STATUS_OBJECT_NAME_COLLISION (0xC0000035)"),
        ("ERROR_ALREADY_EXISTS", "ERROR_ALREADY_EXISTS (183)"),
        ("183", "ERROR_ALREADY_EXISTS (183)"),
        ("NameTakenError", "NameTakenError"),
        ("extmem.NameTakenError", "NameTakenError"),
        ("extmem.errors.NameTakenError", "NameTakenError"),
        ("01441", "VUID-VkImportMemoryWin32HandleInfoKHR-handle-01441"),
        ("00658", "VUID-VkImportMemoryWin32HandleInfoKHR-handleType-09861"),
    ],
)
def test_everything_answers_to_all_its_names(name: str, title: str) -> None:
    assert explain(name).title == title


def test_a_win32_code_of_several_statuses_names_them_all() -> None:
    explanation = explain("6")
    assert explanation.aliases == ("STATUS_OBJECT_TYPE_MISMATCH", "STATUS_INVALID_HANDLE", "STATUS_HANDLE_NOT_CLOSABLE")
    assert all(name in explanation.text for name in explanation.aliases)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("NameTaken", "NameTakenError"),
        ("STATUS_OBJECT_NAME_COLISION", "STATUS_OBJECT_NAME_COLLISION"),
        ("VUID-VkImportMemoryWin32HandleInfoKHR-handle-01442", "01441"),
        ("02726", "vkBindBufferMemory-memory-02726"),
        ("xyzzy", "Give a VUID"),
        ("4242", "Give a VUID"),
        ("", "Give a VUID"),
    ],
)
def test_the_unknown_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(LookupError, match=hint):
        explain(name)


def test_the_texts_are_about_the_real_errors() -> None:
    assert set(CLASSES) == set(errors.__all__)
    for name, result in RESULTS.items():
        assert vk.Result[name.removeprefix("VK_")] == result.code
        assert result.raised_as in CLASSES


def test_the_texts_are_about_the_real_statuses() -> None:
    """Numbers, Win32 codes and classes are the object manager's (B14)."""
    real = {f"STATUS_{s.name}": s for s in objects.Status if s}
    assert set(STATUSES) == set(real)
    for name, status in STATUSES.items():
        raised = objects.error_for(real[name], "no.")
        assert (raised.ntstatus, raised.winerror) == (status.code, status.winerror)
        assert type(raised).__name__ == status.raised_as
