"""C declarations for cffi, the out-of-line ABI module made from them, and the field tables.

How this works: member declarations are the text of the registry; only the types that they mention are defined here, so
that one declaration is valid on every OS: enums are int32_t, flags uint32_t or uint64_t, handles that Vulkan defines as
64-bit numbers are uint64_t, HANDLE is void*, DWORD uint32_t, LPCWSTR const uint16_t*. The layout by a C compiler from
the real headers is compared with cffi's layout from this text (see `layout`). cffi parses the text here and writes it
in compiled form, so nothing is parsed when the library is imported.
"""

from __future__ import annotations

import io
import re

from codegen.registry import CommandModel, Model, StructModel
from codegen.writers import header

__all__ = ["declarations", "struct_text", "typedefs", "write_abi", "write_libc", "write_marshal"]

WINDOWS = {
    "HANDLE": "typedef void *HANDLE;",
    "DWORD": "typedef uint32_t DWORD;",
    "LPCWSTR": "typedef const uint16_t *LPCWSTR;",
    "SECURITY_ATTRIBUTES": (
        "typedef struct SECURITY_ATTRIBUTES {\n    DWORD nLength;\n    void *lpSecurityDescriptor;\n"
        "    int32_t bInheritHandle;\n} SECURITY_ATTRIBUTES;"
    ),
}


def typedefs(model: Model) -> dict[str, str]:
    """Return every type that members and parameters mention, with its declaration, in an order that compiles."""
    declarations_by_name = {
        "VkFlags": "typedef uint32_t VkFlags;",
        "VkFlags64": "typedef uint64_t VkFlags64;",
        "VkBool32": "typedef uint32_t VkBool32;",
        "VkDeviceSize": "typedef uint64_t VkDeviceSize;",
        **WINDOWS,
        "VkAllocationCallbacks": "typedef struct VkAllocationCallbacks VkAllocationCallbacks;",
        "PFN_vkVoidFunction": "typedef void (__stdcall *PFN_vkVoidFunction)(void);",
    }
    for e in model.enums:
        if e.is_flags:
            declarations_by_name[e.c_name] = f"typedef uint{e.width}_t {e.c_name};"
        else:
            declarations_by_name[e.c_name] = f"typedef int32_t {e.c_name};"
    mentioned = {f.c_type for s in (*model.structs, *model.c_structs) for f in s.fields}
    mentioned |= {word for c in model.commands for p in c.params for word in p.c_type.split()}
    for name, (_, width) in sorted(model.bitmask_of.items()):
        if name in mentioned:
            declarations_by_name[name] = f"typedef {'VkFlags64' if width == 64 else 'VkFlags'} {name};"
    for name, dispatchable in model.handles:
        declarations_by_name[name] = f"typedef void *{name};" if dispatchable else f"typedef uint64_t {name};"
    return declarations_by_name


def struct_text(struct: StructModel, model: Model) -> str:
    """Return one struct in C, with array lengths as numbers."""
    lengths = dict(model.constants)

    def number(match: re.Match[str]) -> str:
        word = match.group(1)
        return f"[{word if word.isdigit() else lengths[word]}]"

    lines = ["    " + re.sub(r"\[(\w+)\]", number, f.c_declaration) + ";" for f in struct.fields]
    kind = "union" if struct.is_union else "struct"
    return f"typedef {kind} {struct.c_name} {{\n" + "\n".join(lines) + f"\n}} {struct.c_name};"


def _pointer_text(command: CommandModel) -> str:
    params = ", ".join(f"{p.c_type} {p.name}" for p in command.params)
    # __stdcall is what VKAPI_PTR means on 32-bit Windows; cffi ignores it elsewhere.
    return f"typedef {command.return_type} (__stdcall *PFN_{command.c_name})({params});"


def declarations(model: Model) -> str:
    """Return all declarations for cffi."""
    parts = list(typedefs(model).values())
    parts.append(
        "typedef struct VkBaseOutStructure {\n    VkStructureType sType;\n    struct VkBaseOutStructure *pNext;\n"
        "} VkBaseOutStructure;"
    )
    parts += [struct_text(s, model) for s in (*model.structs, *model.c_structs)]
    parts += [_pointer_text(c) for c in model.commands]
    # The one function that is looked up in the loader by name. It returns the addresses of all others.
    parts.append("PFN_vkVoidFunction vkGetInstanceProcAddr(VkInstance instance, const char* pName);")
    return "\n".join(parts) + "\n"


def write_abi(model: Model) -> str:
    """Return the text of `_abi.py`: the declarations in cffi's compiled form."""
    return _compiled(model, "extmem.vk._generated._abi", declarations(model))


_LIBC = """
uintptr_t mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, long offset);
int munmap(uintptr_t addr, size_t length);
long syscall(long number, uintptr_t a, unsigned long b, unsigned long c, uintptr_t d, uintptr_t e, unsigned long f);
"""
"""Addresses are numbers, because they are not dereferenced. `syscall` has the arguments of futex(2)."""


def write_libc(model: Model) -> str:
    """Return the text of `_libc.py`: the functions with which the host device maps memory, and waits."""
    return _compiled(model, "extmem.devices.host._libc", _LIBC)


def _compiled(model: Model, module: str, text: str) -> str:
    import cffi
    from cffi import recompiler

    ffi = cffi.FFI()
    ffi.set_source(module, None)
    ffi.cdef(text)
    source = io.StringIO()
    recompiler.make_py_source(ffi, module, source)
    emitted = source.getvalue()
    marker = "# auto-generated file\n"
    if not emitted.startswith(marker):
        raise ValueError("the first line of cffi's output has changed; check the rest of its output")
    subject = f"C declarations for cffi, in the form cffi {cffi.__version__} compiled them to."
    return header(model, subject) + "\n" + emitted.removeprefix(marker)


def write_marshal(model: Model) -> str:
    """Return the text of `marshal.py`: the table by which struct members are converted to C and back."""
    text = header(model, "How the members of each struct are converted to C and back; read by `extmem.vk.abi` only.")
    text += "\nfrom collections.abc import Mapping\n\nfrom extmem.vk._fields import FieldSpec\n\n"
    text += '__all__ = ["FIELDS"]\n\nFIELDS: Mapping[str, tuple[FieldSpec, ...]] = {\n'
    for s in model.structs:
        text += f'    "{s.c_name}": (\n'
        for f in s.py_fields:
            type_name = f.enum
            if "struct" in (f.kind, f.element):
                type_name = f.c_type.removeprefix("Vk")
            c_type = f.c_type if f.kind == "sequence" else ""
            row = (f.c_name, f.py_name, f.kind, f.element, f.length, f.count_field, type_name, c_type)
            shown = ", ".join(f'"{v}"' if isinstance(v, str) else str(v) for v in row)
            text += f"        FieldSpec({shown}),\n"
        text += "    ),\n"
    return text + "}\n"
