"""One vkCreateBuffer or vkCreateImage with its facts, and the suites in which the checks of both are registered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extmem import vk
from extmem.rules._enabled import CHAINED, lacks
from extmem.rules._engine import Finding, Suite
from extmem.rules.facts import DeviceFacts, ExternalMemoryFacts, ImageFormatFacts
from extmem.vk._generated.chains import CHAIN_ALLOWED
from extmem.vk.handle_types import MemoryHandleType

__all__ = [
    "BOTH",
    "CREATE_BUFFER",
    "CREATE_IMAGE",
    "FORMAT_QUERY",
    "Answers",
    "Create",
    "chain_of",
    "foreign_structs",
    "lacking_features",
    "repeated_structs",
]

Answers = Mapping[MemoryHandleType, ExternalMemoryFacts]
_LONGEST_CHAIN = 64


def chain_of(info: Any) -> list[Any]:
    """Return the structs chained to this one. If the chain leads back into itself, the list repeats some of them."""
    structs: list[Any] = []
    node = info.p_next
    while node is not None and len(structs) < _LONGEST_CHAIN:
        structs.append(node)
        node = node.p_next if isinstance(node, vk.ChainStruct) else None
    return structs


@dataclass(slots=True)
class Create:
    """One vkCreateBuffer or vkCreateImage, or an image format query."""

    info: Any
    external: Any
    handle_types: MemoryHandleType
    where: str
    """Path of the struct about external memory."""
    answers: Answers
    device: DeviceFacts | None = None
    nv: Any = None
    chain: list[Any] = field(default_factory=list)
    format: ImageFormatFacts | None = None
    """What the device reported for exactly this image; None if it was not queried."""


CREATE_BUFFER: Suite[Create] = Suite("vkCreateBuffer")
CREATE_IMAGE: Suite[Create] = Suite("vkCreateImage")
BOTH = (CREATE_BUFFER, CREATE_IMAGE)
FORMAT_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")
"""vkGetPhysicalDeviceImageFormatProperties2. Checks on the struct about external memory are in `create_and_query`."""


def foreign_structs(call: Create, struct: str) -> Finding | None:
    """Return a finding if the chain of this struct (its C name) contains a struct that does not extend it."""
    allowed = CHAIN_ALLOWED[struct]
    problems = []
    for node in dict.fromkeys(type(n) for n in call.chain):
        needs = CHAINED.get(node)
        if getattr(node, "C_NAME", "") not in allowed:
            problems.append(f"{node.__name__} does not extend {struct.removeprefix('Vk')}")
        elif needs is not None and lacks(needs, call.device):
            problems.append(f"{node.__name__} needs {needs.text}, which is not enabled")
    if not problems:
        return None
    return f"{struct.removeprefix('Vk')}.pNext", "; ".join(problems), "Take it out of the chain."


def repeated_structs(call: Create) -> Finding | None:
    """Return a finding if the chain contains a struct type more than once."""
    if len(call.chain) < 2:
        return None
    types = [type(node) for node in call.chain]
    again = [struct.__name__ for struct in dict.fromkeys(types) if types.count(struct) > 1]
    if not again:
        return None
    return (
        f"{type(call.info).__name__}.pNext",
        f"{', '.join(again)} is in the chain more than once",
        "Keep one struct of each type.",
    )


def lacking_features(call: Create, names: Iterable[str]) -> list[str]:
    """Return those of these features that are known not to be enabled."""
    features = call.device.features if call.device is not None else None
    return [] if features is None else [name for name in names if name not in features]
