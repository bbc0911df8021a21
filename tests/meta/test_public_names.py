"""The public names: what is promised, what type checkers get and what can be imported are one list."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import re
import sys
from pathlib import Path

import msgspec
import pytest

import extmem
from extmem.owning import Held
from scripts.public_members import is_public, public_members
from tests.meta.tools import ROOT, SOURCE, python, python_files

HEAVY = ("numpy", "click", "rich", "cffi", "msgspec")
REFUSAL = "Windows|_win32" if sys.platform == "linux" else "Linux"
"""The text that modules of another platform raise when they are imported."""
FRAMEWORKS = {"extmem.interop.read_only_tensor": "torch", "extmem.interop.torch_operations": "torch"}
"""Modules that are loaded only where a framework is used, and the framework, which no extra of extmem installs."""
OPTIONAL = ("numpy", "click", "rich", "cffi")
_DUNDERS = {"__version__"}


def declared(tree: ast.Module) -> tuple[set[str], set[str], set[str]]:
    """Return of a package's `__init__`: `__all__`, the lazy table's names, and those imported for type checkers."""
    promised: set[str] = set()
    lazy: set[str] = set()
    typed: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = target.id if isinstance(target, ast.Name) else ""
            if name == "__all__" and node.value is not None:
                promised = set(ast.literal_eval(node.value))
            elif name == "_MODULES" and node.value is not None:
                lazy |= set(ast.literal_eval(node.value))
            elif name == "_NAMES" and node.value is not None:
                lazy |= {entry for entries in ast.literal_eval(node.value).values() for entry in entries}
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for inner in node.body:
                if isinstance(inner, ast.ImportFrom):
                    typed |= {alias.asname or alias.name for alias in inner.names}
    return promised, lazy, typed


def without_signature(names: dict[str, object]) -> list[str]:
    """Return the records that `help` cannot show: a type of a field is not found where the class is."""
    missing = []
    for name, value in names.items():
        if isinstance(value, type) and issubclass(value, msgspec.Struct):
            try:
                inspect.signature(value)
            except NameError as error:
                missing.append(f"{name}: {error}")
    return missing


def undocumented(names: dict[str, object]) -> list[str]:
    """Return names without a docstring, and their methods and properties without one that a program may use."""
    missing = []
    for name, value in names.items():
        if not inspect.getdoc(value):
            missing.append(name)
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                plain = inspect.isfunction(member) or isinstance(member, (property, staticmethod, classmethod))
                if plain and is_public(value, attribute, None) and not inspect.getdoc(member):
                    missing.append(f"{name}.{attribute}")
    return missing


def _public() -> dict[str, object]:
    return {name: getattr(extmem, name) for name in extmem.__all__}


def test_promised_lazy_and_typed_names_are_one_list() -> None:
    promised, lazy, typed = declared(ast.parse(Path(extmem.__file__).read_text(encoding="utf-8")))
    assert promised == lazy == typed
    assert list(extmem.__all__) == sorted(extmem.__all__)


def test_every_promised_name_resolves_to_the_object_of_its_home() -> None:
    for name, value in _public().items():
        home = extmem._HOME.get(name)
        expected = (
            importlib.import_module(f"extmem.{name}") if home is None else getattr(importlib.import_module(home), name)
        )
        assert value is expected, name
    assert set(dir(extmem)) == set(extmem.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne'"):
        _ = extmem.opne  # type: ignore[attr-defined]  # the test is that it fails


def test_every_error_class_is_public() -> None:
    from extmem import errors

    classes = {
        name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.ExtmemError)
    }
    assert classes == set(errors.__all__)
    assert classes <= set(extmem.__all__)


def test_every_public_name_and_its_members_are_documented() -> None:
    assert not undocumented(_public())


def test_help_shows_the_signature_of_every_public_record() -> None:
    from extmem import rules, vk

    facts = {name: getattr(rules, name) for name in rules.__all__}
    for names in (_public(), facts, {"Command": vk.Command, "Param": vk.Param}):
        assert not without_signature(names)
    assert len([one for one in map(_public().get, extmem.__all__) if isinstance(one, type(msgspec.Struct))]) > 3


def test_a_record_without_a_signature_is_found() -> None:
    planted = msgspec.defstruct("Planted", [("field", "NoSuchType")])  # type: ignore[list-item]  # as in a class body
    assert len(without_signature({"Planted": planted, "Descriptor": extmem.Descriptor})) == 1


def test_every_all_of_a_module_resolves() -> None:
    """Each module's `__all__` contains names that exist, once each."""
    for path in python_files():
        if path.name == "__main__.py" or "_generated" in path.parts:
            continue
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        module_name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            if lacks_its_framework(module_name, error):
                names, there = names_in(path.read_text(encoding="utf-8"))
            else:
                # a module of another platform raises; type checkers check it there
                assert re.search(REFUSAL, f"{path} {error}"), error
                continue
        else:
            names = list(getattr(module, "__all__", []))
            there = {name for name in names if hasattr(module, name)}
        assert len(names) == len(set(names)), f"{module_name}.__all__ names something twice"
        missing = [name for name in names if name not in there]
        assert not missing, f"{module_name}.__all__ promises {missing}"


def lacks_its_framework(module_name: str, error: ImportError) -> bool:
    """Return whether the framework of this module is not installed: no other module may need one."""
    return error.name is not None and FRAMEWORKS.get(module_name) == error.name


def names_in(source: str) -> tuple[list[str], set[str]]:
    """Return `__all__` of a module, and the classes and functions that it defines, without importing it."""
    names: list[str] = []
    defined: set[str] = set()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            names = list(ast.literal_eval(node.value))
    return names, defined


def test_only_the_module_about_a_framework_may_lack_it() -> None:
    absent = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert lacks_its_framework("extmem.interop.read_only_tensor", absent)
    assert not lacks_its_framework("extmem.api.device", absent)
    assert not lacks_its_framework("extmem.interop.read_only_tensor", ImportError("another", name="numpy"))
    for module_name in FRAMEWORKS:
        path = SOURCE.parent.joinpath(*module_name.split(".")).with_suffix(".py")
        names, defined = names_in(path.read_text(encoding="utf-8"))
        assert names and set(names) <= defined


def test_a_name_that_a_module_does_not_define_is_found_without_importing_it() -> None:
    names, defined = names_in('import torch\n__all__ = ["Here", "gone"]\nclass Here: ...\n')
    assert names == ["Here", "gone"] and set(names) - defined == {"gone"}


_WEIGH = """
import json, os, sys, threading
{count}
before = held()
import extmem
{more}
print(json.dumps({{
    "loaded": sorted(name for name in {heavy!r} if name in sys.modules),
    "threads": threading.active_count(),
    "fds": len(held() - before),
    "made": os.listdir(os.environ["EXTMEM_RUNTIME_DIR"]) if os.path.isdir(os.environ["EXTMEM_RUNTIME_DIR"]) else [],
}}))
"""


# without the coverage of extmem: the test measures the cost of importing
_COUNT = (
    'def held(): return set(os.listdir("/proc/self/fd"))'
    if sys.platform == "linux"
    else """
import msvcrt
def held():
    found = set()
    for fd in range(512):
        try:
            found.add(msvcrt.get_osfhandle(fd))
        except OSError:
            pass
    return found
"""
)


def weigh(more: str, heavy: tuple[str, ...], tmp_path: Path) -> dict[str, object]:
    """Return what importing loads, starts and opens, in a new interpreter."""
    env = {"EXTMEM_RUNTIME_DIR": str(tmp_path / "run"), "PATH": os.environ["PATH"]}
    if sys.platform == "win32":
        env["SYSTEMROOT"] = os.environ["SYSTEMROOT"]
    result = python(_WEIGH.format(more=more, heavy=heavy, count=_COUNT), cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    answer: dict[str, object] = json.loads(result.stdout)
    return answer


NOTHING = {"loaded": [], "threads": 1, "fds": 0, "made": []}


def test_importing_extmem_loads_and_starts_nothing(tmp_path: Path) -> None:
    assert weigh("", HEAVY, tmp_path) == NOTHING


def test_touching_every_public_name_loads_no_optional_package_and_starts_nothing(tmp_path: Path) -> None:
    assert weigh("for name in extmem.__all__: getattr(extmem, name)", OPTIONAL, tmp_path) == NOTHING


# Planted faults.


def test_planted_faults_in_the_tables_are_found() -> None:
    good = (
        "__all__ = ['a', 'm']\n_MODULES = ('m',)\n_NAMES = {'x.y': ('a',)}\nif TYPE_CHECKING:\n    from x import a, m\n"
    )
    promised, lazy, typed = declared(ast.parse(good))
    assert promised == lazy == typed == {"a", "m"}
    for old, new in [("'a', 'm'", "'a'"), ("('m',)", "()"), ("import a, m", "import a")]:
        promised, lazy, typed = declared(ast.parse(good.replace(old, new)))
        assert not promised == lazy == typed


def test_planted_missing_docstrings_are_found() -> None:
    class Documented:
        """It has a docstring."""

        def method(self) -> None:
            """It has a docstring, too."""

    class Undocumented:
        """It has a docstring."""

        def method(self) -> None: ...

    assert undocumented({"Documented": Documented}) == []
    assert undocumented({"Undocumented": Undocumented}) == ["Undocumented.method"]
    assert undocumented({"f": lambda: None}) == ["f"]


def test_what_is_for_the_library_itself_is_not_public() -> None:
    class Owned(Held):
        """It has a docstring."""

        def method(self) -> None:
            """It has a docstring, too."""

        def marked(self) -> None:
            """It has a docstring, and is marked (for the library itself)."""

        def give_back(self) -> None: ...

        def _hidden(self) -> None: ...

    class Free:
        """A member of the same name that is not inherited from `Held`."""

        def give_back(self) -> None: ...

    assert public_members(Owned) == ["method"]
    assert public_members(Free) == ["give_back"]
    assert undocumented({"Owned": Owned, "Free": Free}) == ["Free.give_back"]


def test_the_reference_has_the_public_members_alone() -> None:
    """The pages omit members of `Held` and marked ones, and have the others."""
    page = (ROOT / "docs" / "reference" / "extmem.md").read_text(encoding="utf-8")
    for cls in (extmem.Buffer, extmem.DeviceMemory, extmem.FdHandle, extmem.Device):
        text = page.partition(f"\n## `{cls.__name__}`\n")[2].partition("\n## ")[0]
        shown = set(re.findall(r"^\*\*`(?:async )?(\w+)", text, re.MULTILINE))
        public = {name for name in public_members(cls) if callable(getattr(cls, name))}
        assert public and public <= shown, cls
        assert not shown & (set(dir(cls)) - set(public_members(cls))), cls


REFERENCE = {
    "extmem.md": ("extmem",),
    "errors.md": ("extmem.errors",),
    "checks.md": ("extmem.rules",),
    "process.md": ("extmem.process",),
    "raw.md": ("extmem.raw",),
    "testing.md": tuple(
        f"extmem.testing.{name}" for name in ("children", "faults", "leaks", "runtime", "strategies", "waiting")
    ),
    "vk.md": ("extmem.vk",),
}
"""The pages of docs/reference, and the modules whose public names each has."""
ELSEWHERE = {
    "extmem": {"errors", "process", "raw", "rules", "torch", "vk", "__version__"},
    "extmem.rules": {"ledger", "RELEASED"},
}
"""Public names that are modules, which have pages of their own, or a number."""


def missing_in_reference(page: str, module: str, names: set[str]) -> set[str]:
    """Return the names that have no heading and no row of a table on the page. module: the module of the names."""
    shown = set(re.findall(r"^#{2,3} `(\w+)(?= = |`)", page, re.MULTILINE)) | set(
        re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    )
    return names - shown - ELSEWHERE.get(module, set())


def test_the_reference_has_every_public_name() -> None:
    missing = {}
    for name, modules in REFERENCE.items():
        page = (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8")
        for module_name in modules:
            module = importlib.import_module(module_name)
            names = set(module.__all__)
            if module_name == "extmem":
                names -= set(importlib.import_module("extmem.errors").__all__)
            elif module_name == "extmem.vk":  # suffixed aliases are described in a sentence, unions and tables are not
                names = {n for n in names if getattr(getattr(module, n), "__name__", "") == n}
            missing[module_name] = missing_in_reference(page, module_name, names)
    assert not any(missing.values()), missing


def test_planted_name_without_an_entry_is_found() -> None:
    page = "## `open`\n\n### `LIMIT = 3`\n\n| `Struct` | `VkStruct` |\n\n`told` in passing\n"
    assert missing_in_reference(page, "x", {"open", "LIMIT", "Struct"}) == set()
    assert missing_in_reference(page, "x", {"open", "told"}) == {"told"}


@pytest.mark.parametrize(
    ("fault", "key"),
    [
        ("import numpy", "loaded"),
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads"),
        ("f = os.open(os.devnull, os.O_RDONLY)", "fds"),
        ("os.makedirs(os.environ['EXTMEM_RUNTIME_DIR'] + '/x')", "made"),
    ],
)
def test_planted_import_costs_are_found(fault: str, key: str, tmp_path: Path) -> None:
    assert weigh(fault, HEAVY, tmp_path)[key] != NOTHING[key]
