"""The complete list of files that the generator may write, and the comparison of that list with the files on disk.

Writing and checking differ in the last step only: all texts are made in memory first.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from codegen import c_modules, format_table, report, writers
from codegen.registry import Model

__all__ = ["FILES", "GENERATED", "compare", "render", "write"]

GENERATED = "src/extmem/vk/_generated"


def _package(model: Model) -> str:
    return writers.header(
        model, "Structs, enums, flags and commands of the Vulkan registry. Use `extmem.vk`, which has them all."
    )


FILES: dict[str, Callable[[Model], str]] = {
    f"{GENERATED}/__init__.py": _package,
    f"{GENERATED}/constants.py": writers.write_constants,
    f"{GENERATED}/enums.py": writers.write_enums,
    f"{GENERATED}/enums.pyi": writers.write_enum_stubs,
    f"{GENERATED}/flags.py": writers.write_flags,
    f"{GENERATED}/flags.pyi": writers.write_flag_stubs,
    f"{GENERATED}/structs.py": writers.write_structs,
    f"{GENERATED}/structs.pyi": writers.write_struct_stubs,
    f"{GENERATED}/homes.py": writers.write_homes,
    f"{GENERATED}/chains.py": writers.write_chains,
    f"{GENERATED}/commands.py": writers.write_commands,
    f"{GENERATED}/formats.py": format_table.write_formats,
    f"{GENERATED}/marshal.py": c_modules.write_marshal,
    f"{GENERATED}/_abi.py": c_modules.write_abi,
    "src/extmem/devices/host/_libc.py": c_modules.write_libc,
    "codegen/REPORT.md": report.write_report,
}


def render(model: Model) -> dict[str, str]:
    """Return the text of every generated file, by its path below the repository root."""
    return {path: make(model) for path, make in FILES.items()}


def write(root: Path, texts: dict[str, str]) -> list[str]:
    """Write the files that differ, and return their paths. Orphans are reported by `compare`, never deleted here."""
    changed = []
    for path, text in texts.items():
        target = root / path
        if not target.is_file() or target.read_text("utf-8") != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8", newline="\n")
            changed.append(path)
    return changed


def compare(root: Path, texts: dict[str, str]) -> list[str]:
    """Return one message for each file that is missing, differs, or exists without being generated."""
    complaints = []
    for path, text in texts.items():
        target = root / path
        if not target.is_file():
            complaints.append(f"missing: {path}")
            continue
        on_disk = target.read_text("utf-8")
        if on_disk != text:
            diff = difflib.unified_diff(
                on_disk.splitlines(), text.splitlines(), f"{path} (on disk)", f"{path} (generated)", lineterm=""
            )
            complaints.append(f"differs: {path}\n" + "\n".join(list(diff)[:60]))
    folder = root / GENERATED
    there = {p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts} if folder.is_dir() else set()
    expected = {root / path for path in texts}
    complaints += [f"orphan: {p.relative_to(root).as_posix()}" for p in sorted(there - expected)]
    return complaints
