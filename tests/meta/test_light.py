"""What importing extmem and opening the host device load: little, and nothing that only other calls need."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

from extmem.testing.children import Peer
from tests.meta.tools import python

IMPORTING = "import extmem"
OPENING = "import extmem; extmem.open_device(kind='host')"
LATER = (
    # Packages, and modules of Python that take milliseconds to import.
    *("asyncio", "ctypes", "difflib", "json", "logging", "multiprocessing", "pathlib", "socket"),
    *("subprocess", "tempfile"),
    *("cffi", "click", "cuda", "numpy", "rich", "vulkan"),
    # Parts of extmem that a device needs for its calls, and not for its opening.
    *(
        "extmem.interop.frameworks",
        "extmem.sharing.descriptor",
        "extmem.manager.linux.client",
        "extmem.wire",
        "extmem.cli",
        "extmem.devices.cuda",
    ),
    *("extmem.devices.resources", "extmem.devices.vulkan", "extmem.manager", "extmem.core.opening"),
    *("extmem.core._sync_operations", "extmem.core.sync_state", "extmem.devices.sync", "extmem.api.timeline"),
    *("extmem.objects", "extmem.rules._checks", "extmem.rules.ledger", "extmem.testing", "extmem.vk.abi"),
)
"""Modules that opening the host device must not load."""
LINUX = pytest.mark.linux_only("on Windows the kernel is called through ctypes, and the object manager makes payloads")
MOST_TO_IMPORT, MOST_TO_OPEN = 3, 165
"""The number of modules that importing and opening may load, including Python's, which depend on the version."""

_COUNT = """
import sys
before = set(sys.modules)
{code}
print(sorted(set(sys.modules) - before))
"""


def loaded(code: str, tmp_path: Path) -> list[str]:
    """Return the modules that the code loads in a new interpreter, in addition to those of an empty one."""
    result = python(_COUNT.format(code=code), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    names: list[str] = ast.literal_eval(result.stdout)
    return names


def too_much(names: list[str], later: tuple[str, ...], most: int) -> list[str]:
    """Return what is wrong with a list of loaded modules: those that must be loaded later, and too many."""
    found = [name for name in names if any(f"{name}.".startswith(f"{one}.") for one in later)]
    return found + [f"{len(names)} modules, at most {most}: {' '.join(names)}"] * (len(names) > most)


def test_importing_extmem_loads_no_other_module(tmp_path: Path) -> None:
    names = loaded(IMPORTING, tmp_path)
    assert "extmem" in names
    assert not too_much(names, (*LATER, "typing", "re", "enum", "importlib"), MOST_TO_IMPORT)


@LINUX
def test_opening_the_host_device_loads_nothing_that_its_calls_need(tmp_path: Path) -> None:
    names = loaded(OPENING, tmp_path)
    assert "extmem.devices.host.backend" in names
    assert not too_much(names, LATER, MOST_TO_OPEN)


@LINUX
def test_what_comes_later_exists_and_is_loaded_by_the_calls(tmp_path: Path) -> None:
    """The twin: the names in the list are names of modules, some of which `allocate` loads."""
    names = loaded(f"{OPENING}.create_buffer(extmem.vk.BufferCreateInfo(size=64, usage=1))", tmp_path)
    assert {"extmem.core.creating", "extmem.devices.resources", "extmem.rules._checks"} <= set(names)
    assert len(too_much(names, LATER, MOST_TO_OPEN)) >= 3


UNUSED = (
    *("click", "cuda", "rich", "vulkan"),
    *("extmem.core.creating", "extmem.core.exporting", "extmem.core.image_queries", "extmem.core.sync_state"),
    *("extmem.interop.conversions", "extmem.interop.transfer", "extmem.interop.writing"),
    *("extmem.objects.core", "extmem.objects.entities", "extmem.objects.rows", "extmem.objects.sddl"),
    *("extmem.rules._checks", "extmem.sharing.descriptor.create_infos", "extmem.vk._generated.commands"),
    *("extmem.vk.abi", "extmem.vk.formats", "extmem.vk.modifiers", "extmem.vk.struct_copies"),
)
"""Modules that a program must not load which opens memory by name and makes an array."""
MOST_OF_EXTMEM = 145
"""The number of modules of extmem that such a program may load."""
MOST_ENUMS = 6
"""The number of enums and flags of the registry, of more than fifty, that it may make."""


_ENUMS = """
import extmem, sys
import extmem.vk._generated.enums as enums, extmem.vk._generated.flags as flags
extmem.open('light by name').numpy()
print([[*sys.modules], [name for module in (enums, flags) for name in vars(module) if name in module.CLASSES]])
"""


@LINUX
def test_opening_memory_by_name_loads_what_an_array_needs(tmp_path: Path) -> None:
    with Peer() as exporter:
        exporter("import extmem; memory = extmem.open_device(kind='host').allocate(64, name='light by name'); None")
        result = python(_ENUMS, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    modules, enums = ast.literal_eval(result.stdout)
    own = [name for name in modules if name.startswith("extmem")]
    assert "extmem.interop.numpy_views" in own
    assert not too_much(own, UNUSED, MOST_OF_EXTMEM)
    assert "ExternalMemoryHandleTypeFlagBits" in enums and len(enums) <= MOST_ENUMS, enums


def test_what_it_does_not_load_exists() -> None:
    assert not [name for name in UNUSED if name.startswith("extmem") and importlib.util.find_spec(name) is None]


SYNC = ("sync_", "semaphore", "fence", "timeline", "futex", "submitting", "host_waits")
"""Parts of the names of modules of semaphores and fences."""
FEW = {"extmem.api.sync_device", "extmem.core.sync_operations"}
"""Modules of them that every program loads: the methods of a device, which load the others at their first call."""


def of_semaphores(names: list[str]) -> list[str]:
    """Return the modules that only programs with semaphores and fences need."""
    return [name for name in names if any(part in name.rpartition(".")[2] for part in SYNC) and name not in FEW]


@LINUX
def test_a_program_with_memory_alone_loads_no_module_of_semaphores(tmp_path: Path) -> None:
    memory = f"d = {OPENING.rpartition('; ')[2]}; m = d.allocate(64, name='light'); m.fill(1); extmem.open('light'); m"
    with_memory = loaded(f"{IMPORTING}; {memory}", tmp_path)
    assert "extmem.core.opening" in with_memory and not of_semaphores(with_memory)
    assert len(of_semaphores(loaded(f"{OPENING}.timeline()", tmp_path))) > 10


@LINUX
def test_checks_of_memory_load_none_of_semaphores(tmp_path: Path) -> None:
    names = loaded("from extmem import rules; rules.check_map_memory", tmp_path)
    assert "extmem.rules._checks" in names
    assert not [name for name in names if "sync" in name or "semaphore" in name or "fence" in name]
    assert "extmem.rules._sync_checks" in loaded("from extmem import rules; rules.check_create_fence", tmp_path)


@LINUX
def test_facts_are_loaded_without_checks(tmp_path: Path) -> None:
    """The description of a payload needs facts, and an open makes no call that could be checked."""
    names = loaded("from extmem import rules; rules.PayloadFacts, rules.Refusal", tmp_path)
    assert "extmem.rules.facts" in names and "extmem.rules._checks" not in names


@LINUX
@pytest.mark.parametrize("fault", ["import json", "import extmem.manager", "extmem.rules.check_map_memory"])
def test_planted_early_imports_are_found(fault: str, tmp_path: Path) -> None:
    assert too_much(loaded(f"{OPENING}; {fault}", tmp_path), LATER, sys.maxsize)


def test_planted_modules_beyond_the_bound_are_found() -> None:
    assert too_much(["a", "b", "c"], LATER, 2) == ["3 modules, at most 2: a b c"]
    assert not too_much(["a", "b", "extmem.managers"], LATER, 3)
    assert too_much(["extmem.manager.api"], LATER, 3) == ["extmem.manager.api"]
