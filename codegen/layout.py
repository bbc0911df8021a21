"""Sizes, alignments and offsets by a C compiler, with which cffi's are compared.

They come from the Vulkan headers of the system if these have the struct; structs newer than the headers are compiled
from the registry's declarations. `python -m codegen layout` writes them as a fixture, for machines without a compiler;
nothing else writes it.
"""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from codegen import c_modules
from codegen.registry import Model

__all__ = ["FIXTURE", "Layout", "ask_compiler", "available", "c_program", "read_fixture", "write_fixture"]

FIXTURE = "tests/fixtures/layout/layout.json"
STUB = "tests/fixtures/layout"
HEADERS = Path("/usr/include/vulkan")

Layout: TypeAlias = dict[str, dict[str, object]]
"""Struct → {"size", "align", "fields": {member: [offset, size]}, "from": "headers" or "registry"}."""


def available() -> str:
    """Return the C compiler to use; '' if there is none, or there are no Vulkan headers."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or not (HEADERS / "vulkan_core.h").is_file() or not (HEADERS / "vulkan_win32.h").is_file():
        return ""
    return compiler


def _header_text() -> str:
    return "".join((HEADERS / name).read_text("utf-8") for name in ("vulkan_core.h", "vulkan_win32.h"))


def c_program(model: Model) -> tuple[str, Mapping[str, str]]:
    """Return the C source that prints the layout, and for each struct its origin: headers or registry."""
    headers = _header_text()
    lines = ["#define VK_USE_PLATFORM_WIN32_KHR 1", "#include <vulkan/vulkan.h>", "#include <stddef.h>"]
    lines += ["#include <stdint.h>", "#include <stdio.h>"]
    windows = set(c_modules.WINDOWS) | {"VkAllocationCallbacks", "PFN_vkVoidFunction"}
    for name, text in c_modules.typedefs(model).items():
        if name not in windows and not re.search(rf"\b{name}\b\s*[;)]", headers):
            lines.append(text)
    source: dict[str, str] = {"SECURITY_ATTRIBUTES": "headers"}
    members: dict[str, list[str]] = {"SECURITY_ATTRIBUTES": ["nLength", "lpSecurityDescriptor", "bInheritHandle"]}
    for s in (*model.structs, *model.c_structs):
        in_headers = re.search(rf"}} {s.c_name};", headers) is not None
        source[s.c_name] = "headers" if in_headers else "registry"
        members[s.c_name] = [f.c_name for f in s.fields]
        if not in_headers:
            lines.append(c_modules.struct_text(s, model))
    lines.append("int main(void) {")
    for name, fields in members.items():
        lines.append(f'    printf("{name} = %zu %zu\\n", sizeof({name}), _Alignof({name}));')
        for field in fields:
            lines.append(
                f'    printf("{name} . {field} %zu %zu\\n", offsetof({name}, {field}), sizeof((({name} *)0)->{field}));'
            )
    return "\n".join([*lines, "    return 0;", "}", ""]), source


def ask_compiler(model: Model, root: Path) -> Layout:
    """Compile and run the program. Errors: subprocess.CalledProcessError with the compiler's output."""
    text, source = c_program(model)
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "layout"
        (Path(folder) / "layout.c").write_text(text, "utf-8")
        command = [available(), "-std=c11", "-Wall", "-Werror", "-I", str(root / STUB), "-o", str(program)]
        subprocess.run([*command, f"{program}.c"], check=True, timeout=60, capture_output=True, text=True)
        printed = subprocess.run([str(program)], check=True, timeout=20, capture_output=True, text=True).stdout
    layout: Layout = {}
    offsets: dict[str, dict[str, list[int]]] = {}
    for line in printed.splitlines():
        name, sign, *rest = line.split()
        if sign == "=":
            offsets[name] = {}
            size, align = map(int, rest)
            layout[name] = {"from": source[name], "size": size, "align": align, "fields": offsets[name]}
        else:
            offsets[name][rest[0]] = [int(rest[1]), int(rest[2])]
    return layout


def write_fixture(model: Model, root: Path) -> Path:
    """Write the compiler's layout as the fixture. For 8-byte pointers only."""
    if struct.calcsize("P") != 8:
        raise ValueError("the fixture is for machines with 8-byte pointers, and this machine has others")
    target = root / FIXTURE
    data = {"registry": model.registry_version, "pointer_size": 8, "structs": ask_compiler(model, root)}
    text = json.dumps(data, indent=1)
    text = re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text)
    target.write_text(text + "\n", "utf-8", newline="\n")
    return target


def read_fixture(root: Path) -> Layout:
    """Return the layout in the fixture. It is for machines with 8-byte pointers."""
    structs: Layout = json.loads((root / FIXTURE).read_text("utf-8"))["structs"]
    return structs
