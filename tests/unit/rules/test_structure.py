"""Structure of the rules: their chains, their imports, and the number of checks of a legal call."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from extmem import rules, vk
from extmem.rules import AllocateFacts, _allocation
from extmem.rules._allocation import _SLOTS, ALLOCATE, contents, read
from extmem.vk._generated.chains import CHAIN_ALLOWED
from tests.rules.world import GPU, SIZE, TYPE, T, can, payload, win32

SOURCES = sorted(Path(rules.__file__).parent.glob("*.py"))
IMPURE = {"os", "socket", "ctypes", "time", "threading", "select", "subprocess", "sys", "io", "pathlib"}


def test_every_struct_that_may_be_chained_has_its_slot() -> None:
    """The slots are exactly the structs of this library that extend an allocation in the registry."""
    sayable = {name for name in CHAIN_ALLOWED["VkMemoryAllocateInfo"] if hasattr(vk, name.removeprefix("Vk"))}
    assert {struct.C_NAME for struct in _SLOTS} == sayable


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_rules_are_pure(source: Path) -> None:
    """The rules import no system modules; of extmem only `vk`, `rules`, `arguments`, and `forks` for late imports."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module)]
            if node.module == "extmem":
                names = [f"extmem.{a.name}" for a in node.names]
        for name in names:
            assert name.split(".")[0] not in IMPURE
            if name.startswith("extmem."):
                assert name.split(".")[1] in ("vk", "rules", "arguments", "forks")


def test_a_legal_import_runs_few_checks() -> None:
    """Checks that cannot fail for this call are not called: its traits exclude them."""
    known = AllocateFacts(GPU, capabilities=can(), payload=payload(), max_allocations=4096)
    call, traits = read(vk.MemoryAllocateInfo(SIZE, TYPE, win32(T.OPAQUE_WIN32, name="frames")), known)
    traits = contents(call, traits)
    assert ALLOCATE.run(call, traits) == []
    assert len(ALLOCATE._plans[traits]) <= 10 < len(ALLOCATE.checks)


def test_traits_are_single_and_distinct_bits() -> None:
    bits = [v for k, v in vars(_allocation.Traits).items() if k.isupper()]
    assert all(bit.bit_count() == 1 for bit in bits)
    assert len(bits) == len(set(bits))
