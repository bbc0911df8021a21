"""One vkCreateSemaphore or vkCreateFence with its facts, and the rows that both have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from extmem import vk
from extmem.rules._engine import Demand
from extmem.rules._sync_types import SyncKind
from extmem.rules._text import bits_of
from extmem.rules.device_facts import DeviceFacts
from extmem.rules.sync_facts import ExternalSyncFacts, SyncDeviceFacts
from extmem.vk._generated.chains import CHAIN_ALLOWED

__all__ = ["CreateSync", "attributes_without_export", "chain_rows", "chained_structs", "closed_device", "exportable"]

_LONGEST_CHAIN = 64
_EXPORTABLE = int(vk.ExternalSemaphoreFeatureFlagBits.EXPORTABLE)
"""VK_EXTERNAL_FENCE_FEATURE_EXPORTABLE_BIT has the same value."""


def chained_structs(info: Any) -> list[Any]:
    """Return the structs chained to this one. If the chain leads back into itself, the list repeats some of them."""
    structs: list[Any] = []
    node = info.p_next
    while node is not None and len(structs) < _LONGEST_CHAIN:
        structs.append(node)
        node = node.p_next if isinstance(node, vk.ChainStruct) else None
    return structs


class CreateSync(msgspec.Struct):
    """One call of either command, or a query of what can be created."""

    info: Any
    kind: SyncKind
    facts: SyncDeviceFacts
    where: str
    """Name of the struct."""
    chain: list[Any] = msgspec.field(default_factory=list)

    def chained(self, struct: type) -> Any:
        """Return the first struct of this type in the chain; None if there is none."""
        return next((node for node in self.chain if type(node) is struct), None)

    def nodes(self) -> list[tuple[str, Any]]:
        """Return the struct and the first of each type that is chained to it, with their paths."""
        chained = {f"{self.where}.pNext<{type(node).__name__}>": node for node in reversed(self.chain)}
        return [(self.where, self.info), *reversed(chained.items())]

    @property
    def device(self) -> DeviceFacts:
        """The device."""
        return self.facts.device

    @property
    def handle_type(self) -> int:
        """The handle type that a query is about."""
        return int(self.info.handle_type)

    @property
    def type_info(self) -> Any:
        """VkSemaphoreTypeCreateInfo; None if the chain lacks it."""
        return self.chained(vk.SemaphoreTypeCreateInfo)

    @property
    def timeline(self) -> bool:
        """Whether it is a timeline semaphore."""
        return self.type_info is not None and self.type_info.semaphore_type == vk.SemaphoreType.TIMELINE

    @property
    def export(self) -> Any:
        """VkExportSemaphoreCreateInfo or VkExportFenceCreateInfo; None if the chain lacks it."""
        found = self.chained(vk.ExportSemaphoreCreateInfo)
        return found if found is not None else self.chained(vk.ExportFenceCreateInfo)

    @property
    def export_types(self) -> int:
        """The handle types to export; 0 without them."""
        return int(self.export.handle_types) if self.export is not None else 0

    @property
    def answers(self) -> Mapping[int, ExternalSyncFacts]:
        """What the device reports for such objects, by handle type."""
        return self.facts.semaphore_types(self.timeline) if self.kind.word == "semaphore" else self.facts.fence_types

    @property
    def noun(self) -> str:
        """What is created, in words."""
        if self.kind.word == "fence":
            return "fence"
        return "timeline semaphore" if self.timeline else "binary semaphore"


def closed_device(vuid: str, command: str) -> Demand:
    """Return the row that the device is open."""

    def broken(call: CreateSync) -> bool:
        return not call.device.alive

    return Demand(
        vuid, broken, f"{command}.device", "the device {call.device.name!r} is closed", "Use a device that is open."
    )


def chain_rows(struct: str, *, unique: bool = True) -> tuple[Demand, ...]:
    """Return the rows on the chain of this struct (its C name): what extends it, and that each is there once."""
    allowed, name = CHAIN_ALLOWED[struct], struct.removeprefix("Vk")

    def foreign(call: CreateSync) -> str:
        types = dict.fromkeys(type(node) for node in call.chain)
        return ", ".join(t.__name__ for t in types if getattr(t, "C_NAME", "") not in allowed)

    def repeated(call: CreateSync) -> str:
        types = [type(node) for node in call.chain]
        return ", ".join(t.__name__ for t in dict.fromkeys(types) if types.count(t) > 1)

    where = f"{name}.pNext"
    rows = [
        Demand(
            f"{struct}-pNext-pNext", foreign, where, f"{{found}} does not extend {name}", "Take it out of the chain."
        )
    ]
    if unique:
        more = "{found} is in the chain more than once"
        rows.append(Demand(f"{struct}-sType-unique", repeated, where, more, "Keep one struct of each type."))
    return tuple(rows)


def exportable(kind: SyncKind, vuid: str, struct: str) -> Demand:
    """Return the row that the device exports the types, each alone and all together, for objects of this type."""

    def broken(call: CreateSync) -> tuple[str, str] | None:
        types, answers = call.export_types, call.answers
        wrong = []
        for bit in bits_of(types):
            answer = answers.get(bit)
            if answer is None:
                continue
            if not int(answer.features) & _EXPORTABLE:
                wrong.append(f"a {call.noun} cannot be exported as {kind.text(bit)}")
            elif types & ~(int(answer.compatible) | bit):
                others = kind.text(types & ~(int(answer.compatible) | bit))
                wrong.append(f"{kind.text(bit)} cannot be exported together with {others}")
        if not wrong:
            return None
        remedy = "Give types that the device reports as exportable and compatible; one type is enough to share it."
        if call.timeline and types & kind.copied:
            remedy = "Export a binary semaphore, or signal one after a wait for the timeline's value."
        return "; ".join(wrong), remedy

    where = f"{{call.where}}.pNext<{struct}>.handle_types"
    return Demand(vuid, broken, where, "on {call.device.name!r}: {found[0]}", "{found[1]}")


def attributes_without_export(vuid: str, struct: type, types: int, kind: SyncKind) -> Demand:
    """Return the row that security, access and name are given only with an export of one of these types."""

    def broken(call: CreateSync) -> str:
        if call.chained(struct) is None or call.export_types & types:
            return ""
        if call.export is None:
            return f"there is no {struct.__name__.replace('Win32HandleInfoKHR', 'CreateInfo')}"
        return f"handle_types is {kind.text(call.export_types)}"

    return Demand(
        vuid,
        broken,
        f"{{call.where}}.pNext<{struct.__name__}>",
        f"security, access and name are for exports of {kind.text(types)}, but {{found}}",
        f"Add {' or '.join(kind.text(bit) for bit in bits_of(types))} to the exported types, or remove the struct.",
    )
