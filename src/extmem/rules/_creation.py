"""One vkCreateBuffer or vkCreateImage with its facts, and the suites that the checks of both are registered with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from extmem import vk
from extmem.rules._enabled import CHAINED, lacks
from extmem.rules._engine import Finding, Suite
from extmem.rules.facts import DeviceFacts, ExternalMemoryFacts, ImageFormatFacts
from extmem.vk._generated.chains import CHAIN_ALLOWED

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

Answers = Mapping[int, ExternalMemoryFacts]
_LONGEST_CHAIN = 64


def chain_of(info: Any) -> list[Any]:
    """The structs chained to this one; of a chain that ends in itself, a part that repeats some."""
    found: list[Any] = []
    node = info.p_next
    while node is not None and len(found) < _LONGEST_CHAIN:
        found.append(node)
        node = node.p_next if isinstance(node, vk.ChainStruct) else None
    return found


@dataclass(slots=True)
class Create:
    """One vkCreateBuffer or vkCreateImage, or an image format query."""

    info: Any
    external: Any
    handle_types: int
    where: str
    """The path of the struct about external memory."""
    answers: Answers
    device: DeviceFacts | None = None
    nv: Any = None
    chain: list[Any] = field(default_factory=list)
    format: ImageFormatFacts | None = None
    """The device's answer for exactly this image; None where it was not asked."""


CREATE_BUFFER: Suite[Create] = Suite("vkCreateBuffer")
CREATE_IMAGE: Suite[Create] = Suite("vkCreateImage")
BOTH = (CREATE_BUFFER, CREATE_IMAGE)
FORMAT_QUERY: Suite[Create] = Suite("vkGetPhysicalDeviceImageFormatProperties2")
"""A query of what images there are. The checks on the struct about external memory are in `create_and_query`."""


def foreign_structs(call: Create, struct: str) -> Finding | None:
    """What is in the chain of this struct (its C name) and does not extend it."""
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
    """Struct types that are in the chain more than once."""
    if len(call.chain) < 2:
        return None
    types = [type(node) for node in call.chain]
    again = [kind.__name__ for kind in dict.fromkeys(types) if types.count(kind) > 1]
    if not again:
        return None
    return (
        f"{type(call.info).__name__}.pNext",
        f"{', '.join(again)} is in the chain more than once",
        "Keep one struct of each type.",
    )


def lacking_features(call: Create, names: Iterable[str]) -> list[str]:
    """Which of these features are known not to be enabled."""
    features = call.device.features if call.device is not None else None
    return [] if features is None else [name for name in names if name not in features]
