"""Layers import only to their left, pure modules import nothing of the operating system, few modules check the
platform, and one receives file descriptors.
"""

from __future__ import annotations

import ast
import functools
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.meta.tools import SOURCE, module_name, python_files

# From left to right. A layer may import itself and everything before it.
LAYERS = (
    "forks",
    "errors",
    "arguments",
    "owning",
    "optional",
    "vk",
    "rules",
    "handles",
    "sharing",
    "objects",
    "wire",
    "broker",
    "manager",
    "devices",
    "core",
    "interop",
    "_pickles",
    "api",
    "process",
    "raw",
    "torch",
    "channel",
    "cli",
)
UNRELATED = {("rules", "objects"), ("objects", "rules")}
"""Pairs that must not import each other, whatever their order."""
ENTRANCES = {
    "extmem": "the public names, all of them imported late",
    "extmem.__main__": "python -m extmem",
    "extmem._pickles": "the functions that pickles name, which call `api`: imported late",
}
TESTING = "testing"

PURE = (
    "arguments",
    "vk",
    "rules",
    "sharing",
    "objects",
    "wire.codec",
    "wire.limits",
    "wire.replies",
    "wire.requests",
    "errors",
    "arguments",
    "channel.ring",
)
WORLDLY = {
    "os",
    "socket",
    "ctypes",
    "time",
    "threading",
    "select",
    "selectors",
    "subprocess",
    "multiprocessing",
    "signal",
}

PLATFORM_ASKED = {
    "extmem.devices.host": "picks the backend",
    "extmem.devices.host.handle_types": "states whether payloads are shared by fd",
    "extmem.devices.vulkan.handle_types": "states whose Win32 handles are native",
    "extmem.devices.vulkan.backend": "picks how a driver's memory is shared",
    "extmem.devices.cuda.handle_types": "picks how CUDA's own memory leaves the process",
    "extmem.devices.cuda.host_calls": "picks how a stream wakes who waits on the host",
    "extmem.devices.host.system": "picks what payloads are made of",
    "extmem.devices.host.page_system": "picks what companion pages are made of",
    "extmem.devices.host.range_lock_system": "picks the locks of ranges",
    "extmem.channel.system": "picks what control pages and the locks of writers are made of",
    "extmem.devices.host.sync_system": "picks what semaphores and fences are made of",
    "extmem.devices.vulkan.sync_sharing": "picks how a driver's semaphores and fences are shared",
    "extmem.interop.positioned_reads": "picks how several threads read one file",
    "extmem.manager": "picks the object manager",
    "extmem.owning._system": "picks how descriptors are closed and duplicated",
    "extmem.process": "picks how children inherit",
    "extmem.testing.fake_cuda.sharing": "picks what the fake driver's memory is made of, and shared by",
    "extmem.testing._system": "picks the parts of the testing kit that call the system",
    "extmem.cli.broker": "runs a broker, which exists on Linux only",
    "extmem.cli.bench": "leaves out what only Linux has to measure",
    "extmem.cli._bench.environment": "ends its broker, where there is one",
    "extmem.cli._bench.opening": "picks whom opening is compared with",
    "extmem.testing.fake_vulkan._system": "picks how a fake driver shares",
    "extmem.cli._worker": "picks how a process is started that inherits one thing",
    "extmem.cli.demo": "counts what is open",
    "extmem.cli._guard": "Windows has SIGBREAK for SIGHUP",
}
BACKENDS = (
    "extmem.devices.host.",
    "extmem.devices.vulkan.win32",
    "extmem.devices.vulkan.sync_win32",
    "extmem.devices.cuda.win32",
    "extmem.devices.cuda.windows_host_function",
    "extmem.channel.linux_parts",
    "extmem.channel.windows_parts",
    "extmem.broker",
    "extmem.manager.linux",
    "extmem.wire.",
    "extmem.manager.windows.",
    "extmem.handles._win32.",
    "extmem.owning._",
    "extmem.owning.pipes_and_sockets",
    "extmem.api.sockets",
    "extmem.cli.",
    "extmem.testing.",
)
"""Modules of one platform, or with a part for one. They may refuse the others (a guard), as type checkers expect."""

RECEIVING = {
    "extmem.wire.transport": "close-on-exec, an exact number, an owner for each",
    "extmem.cli._bench.opening_linux": "what passing by bare socket costs",
}
"""Modules of the library that receive file descriptors."""


def imports(module: str, tree: ast.AST, *, is_package: bool = False) -> set[str]:
    """Return every module that the tree imports, anywhere in it, for type checking or not."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = module.split(".")[: len(module.split(".")) - node.level + is_package]
                base = ".".join([*parent, base] if base else parent)
            # `from extmem import vk` imports extmem.vk; `from extmem.vk import find` is covered by its prefix.
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return found


def layer_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "extmem" else None


def wrong_imports(module: str, tree: ast.AST, *, is_package: bool = False) -> list[str]:
    """Return the imports that the module must not have, each as a sentence."""
    own = layer_of(module)
    if module in ENTRANCES or own == TESTING:
        return []
    if own not in LAYERS:
        return [f"{module} is not in a layer of this test: {own}"]
    complaints = []
    for imported in sorted(imports(module, tree, is_package=is_package)):
        other = layer_of(imported)
        if other is None:
            continue
        if other == TESTING:
            complaints.append(f"{module} imports {imported}: nothing imports testing")
        elif other not in LAYERS:
            if other != "__version__":
                complaints.append(f"{module} imports {imported}, which is in no layer")
        elif LAYERS.index(other) > LAYERS.index(own) or (own, other) in UNRELATED:
            complaints.append(f"{module} ({own}) imports {imported} ({other})")
    return complaints


def worldly_imports(module: str, tree: ast.AST) -> list[str]:
    """Return the operating-system modules that a pure module imports."""
    pure = any(module == f"extmem.{layer}" or module.startswith(f"extmem.{layer}.") for layer in PURE)
    if not pure:
        return []
    return sorted(f"{module} imports {name}" for name in imports(module, tree) if name.split(".")[0] in WORLDLY)


def receives_descriptors(tree: ast.AST) -> bool:
    """Return whether it calls a function that receives file descriptors from a socket."""
    names = {"recvmsg", "recvmsg_into", "recv_fds"}
    return any(isinstance(node, ast.Attribute | ast.alias) and _name_of(node) in names for node in ast.walk(tree))


def _name_of(node: ast.Attribute | ast.alias) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.name


def is_guard(node: ast.AST) -> bool:
    """Return whether the node is `if sys.platform != "…": raise …` and nothing else: a refusal, not a choice."""
    return (
        isinstance(node, ast.If)
        and ast.unparse(node.test).startswith("sys.platform != ")
        and [type(inner) for inner in node.body] == [ast.Raise]
        and not node.orelse
    )


def has_guard(tree: ast.Module) -> bool:
    """Return whether the module, or a function of it, refuses other platforms."""
    return any(is_guard(node) for node in ast.walk(tree))


def asks_platform(tree: ast.Module) -> bool:
    """Return whether a condition has `sys.platform`, `os.name` or `platform.system()`, except in guards."""
    refusing = {inner for node in ast.walk(tree) if is_guard(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if node in refusing:
            continue
        tests: list[ast.expr] = []
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            tests.append(node.test)
        elif isinstance(node, (ast.Compare, ast.Match)):
            tests.append(node if isinstance(node, ast.Compare) else node.subject)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
            tests.append(node.func.value)
        for test in tests:
            for inner in ast.walk(test):
                if isinstance(inner, ast.Attribute) and isinstance(inner.value, ast.Name):
                    if (inner.value.id, inner.attr) in {("sys", "platform"), ("os", "name"), ("platform", "system")}:
                        return True
    return False


@functools.cache
def _trees() -> list[tuple[Path, str, ast.Module]]:
    return [(path, module_name(path), ast.parse(path.read_text(encoding="utf-8"))) for path in python_files()]


@pytest.fixture(scope="module", autouse=True)
def _forget_trees() -> Iterator[None]:
    """Release the trees of the whole library: each later leak check visits every living object."""
    yield
    _trees.cache_clear()


def test_layers_import_only_to_their_left() -> None:
    complaints: list[str] = []
    for path, module, tree in _trees():
        complaints += wrong_imports(module, tree, is_package=path.name == "__init__.py")
    assert not complaints, "\n".join(complaints)


def test_the_layers_are_those_that_exist() -> None:
    there = {path.stem if path.is_file() else path.name for path in SOURCE.iterdir() if not path.name.startswith("__")}
    there -= {"py"} | {path.name for path in SOURCE.iterdir() if path.suffix == ".typed"} | {TESTING}
    there = {name.removesuffix(".typed") for name in there} - {"py"}
    assert there <= set(LAYERS), f"no place in the order for {sorted(there - set(LAYERS))}"
    assert set(LAYERS) <= there, f"the order names {sorted(set(LAYERS) - there)}, which do not exist"


def test_pure_modules_import_no_operating_system() -> None:
    complaints = [sentence for _, module, tree in _trees() for sentence in worldly_imports(module, tree)]
    assert not complaints, "\n".join(complaints)


def test_the_platform_is_asked_once_a_subject() -> None:
    asked = {module for _, module, tree in _trees() if asks_platform(tree)}
    strange = sorted(asked - set(PLATFORM_ASKED))
    assert not strange, f"sys.platform is read outside the allow-list (choose in the __init__): {strange}"


def test_file_descriptors_are_received_in_one_place() -> None:
    found = {module for _, module, tree in _trees() if receives_descriptors(tree)}
    found -= {module for module in found if layer_of(module) == TESTING}
    assert found == set(RECEIVING)


def test_only_modules_of_one_platform_refuse_the_others() -> None:
    guarded = {module for _, module, tree in _trees() if has_guard(tree)}
    assert not [module for module in sorted(guarded) if not module.startswith(BACKENDS)]


# Planted faults, each of which the checkers above must find.


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("extmem.errors", "from extmem import vk"),
        ("extmem.rules.bind_memory", "import extmem.objects"),
        ("extmem.objects.core", "from extmem.rules import ledger"),
        ("extmem.broker.server", "def late():\n    from extmem.api import functions"),
        ("extmem.core.views", "if TYPE_CHECKING:\n    from extmem.api.device import Device"),
        ("extmem.api.functions", "from extmem.testing import leaks"),
        ("extmem.handles._nt", "from ..manager import manager"),
        ("extmem.api.functions", "import extmem.cli.main as c"),
        ("extmem.nowhere", "import os"),
    ],
)
def test_planted_import_to_the_right_is_found(module: str, code: str) -> None:
    assert wrong_imports(module, ast.parse(code))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        ("extmem.api.functions", "from extmem.devices import select\nimport os"),
        ("extmem.testing.leaks", "from extmem.cli import main"),
        ("extmem", "from extmem.api import open"),
        ("extmem.manager", "from ._linux import Manager"),
    ],
)
def test_imports_to_the_left_pass(module: str, code: str) -> None:
    assert not wrong_imports(module, ast.parse(code), is_package=module == "extmem.manager")


def test_planted_operating_system_import_is_found() -> None:
    assert worldly_imports("extmem.objects.core", ast.parse("def f():\n    import time"))
    assert worldly_imports("extmem.wire.codec", ast.parse("from os import path"))
    assert not worldly_imports("extmem.broker.server", ast.parse("import socket"))
    assert not worldly_imports("extmem.rules.bind_memory", ast.parse("import enum"))


@pytest.mark.parametrize(
    "code", ["sock.recvmsg(1, 2)", "from socket import recv_fds", "answers.extend(map(sock.recvmsg_into, buffers))"]
)
def test_planted_receiving_is_found(code: str) -> None:
    assert receives_descriptors(ast.parse(code))
    assert not receives_descriptors(ast.parse("sock.recv(1); sock.sendmsg([b'x']); recvmsg = 'a word'"))


def test_planted_platform_question_is_found() -> None:
    asked = ["if sys.platform == 'win32': pass", "x = 1 if os.name == 'nt' else 2", "sys.platform.startswith('win')"]
    assert all(asks_platform(ast.parse(code)) for code in asked)
    guard = ast.parse("if sys.platform != 'linux':\n    raise ImportError('no')\n")
    assert has_guard(guard) and not asks_platform(guard)
    choice = ast.parse("if sys.platform != 'linux':\n    raise ImportError('no')\nelse:\n    import x\n")
    assert asks_platform(choice) and not has_guard(choice)
    unconditional = "name = f'on {platform.system()}'\nprint(sys.platform)"
    assert not asks_platform(ast.parse(textwrap.dedent(unconditional)))
