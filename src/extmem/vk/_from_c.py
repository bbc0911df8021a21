"""C memory → structs of `extmem.vk`.

Everything is copied. Members are read by the same table by which `_to_c` writes them. An enum value that was not in the
registry when this was generated stays an int, and unknown flag bits stay in the flags.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

from extmem.vk._base import ChainStruct, SecurityAttributes, Struct
from extmem.vk._fields import FieldSpec
from extmem.vk._generated import enums, flags, structs
from extmem.vk._generated._abi import ffi
from extmem.vk._generated.marshal import FIELDS
from extmem.vk._to_c import CStruct

__all__ = ["from_c"]

S = TypeVar("S", bound=Struct)

MAX_CHAIN = 1024
"""Maximum number of links of a chain; no valid chain has as many, so a longer one leads back into itself."""


def from_c(cls: type[S], memory: Any) -> S:
    """Copy a struct of class `cls`, with its pNext chain, from C memory.

    memory: a cffi pointer to the struct, the struct itself, a `CStruct`, or an address. All that the struct points to
        must be readable. Links of the chain that are not in `extmem.vk` are omitted, as the specification requires of
        every reader. The address of a security descriptor is returned as an int, and a null handle as None.

    Errors: ValueError if `memory` is null or has another sType, or a count is larger than its array.
    """
    if isinstance(memory, CStruct):
        memory = memory.cdata
    if isinstance(memory, int):
        memory = ffi.cast(f"{cls.C_NAME} *", memory)
    if ffi.typeof(memory).kind == "pointer":
        if memory == ffi.NULL:
            raise ValueError(f"there is no {cls.C_NAME} at address 0")
        memory = ffi.cast(f"{cls.C_NAME} *", memory)[0]
    elif ffi.typeof(memory) is not ffi.typeof(cls.C_NAME):
        raise ValueError(f"{ffi.typeof(memory).cname} is not {cls.C_NAME}")
    first = _one(cls, memory)
    if isinstance(first, ChainStruct):
        _read_chain(first, memory.pNext)
    return first


@cache
def _by_s_type() -> dict[int, type[ChainStruct]]:
    classes = [getattr(structs, name.removeprefix("Vk")) for name in FIELDS]
    return {int(cls.S_TYPE): cls for cls in classes if issubclass(cls, ChainStruct)}


def _read_chain(first: ChainStruct, pointer: Any) -> None:
    last = first
    for _ in range(MAX_CHAIN):
        if pointer == ffi.NULL:
            return
        base = ffi.cast("VkBaseOutStructure *", pointer)
        cls = _by_s_type().get(base.sType)
        if cls is not None:
            link = _one(cls, ffi.cast(f"{cls.C_NAME} *", pointer)[0])
            last.p_next = link
            last = link
        pointer = base.pNext
    raise ValueError(f"the pNext chain of {first.C_NAME} has more than {MAX_CHAIN} links: it leads back into itself")


def _one(cls: type[S], memory: Any) -> S:
    """Return one struct without its chain."""
    if issubclass(cls, SecurityAttributes):
        return cls(_address(memory.lpSecurityDescriptor) or None, bool(memory.bInheritHandle))
    if issubclass(cls, ChainStruct) and memory.sType != cls.S_TYPE:
        raise ValueError(f"{cls.C_NAME}.sType: is {memory.sType}, must be {int(cls.S_TYPE)} ({cls.S_TYPE.name})")
    values = {}
    for spec in FIELDS[cls.C_NAME]:
        values[spec.name] = _READERS[spec.kind](memory, spec, f"{cls.C_NAME}.{spec.c_name}")
    return cls(**values)


def _address(pointer: Any) -> int:
    return int(ffi.cast("uintptr_t", pointer))


def _enum(number: int, spec: FieldSpec) -> int:
    try:
        return cast("int", getattr(enums, spec.type_name)(number))
    except ValueError:
        return number


def _flags(number: int, spec: FieldSpec) -> int:
    return cast("int", getattr(flags, spec.type_name)(number))


def _plain(memory: Any, spec: FieldSpec, where: str) -> Any:
    return getattr(memory, spec.c_name)


def _handle(memory: Any, spec: FieldSpec, where: str) -> int | None:
    return getattr(memory, spec.c_name) or None


def _pointer_handle(memory: Any, spec: FieldSpec, where: str) -> int | None:
    return _address(getattr(memory, spec.c_name)) or None


def _wstr(memory: Any, spec: FieldSpec, where: str) -> str | None:
    pointer = getattr(memory, spec.c_name)
    if pointer == ffi.NULL:
        return None
    length = 0
    while pointer[length]:
        length += 1
    # The names of another process's objects are not validated: half a surrogate pair is kept.
    return bytes(ffi.buffer(pointer, 2 * length)).decode("utf-16-le", "surrogatepass")


def _chars(memory: Any, spec: FieldSpec, where: str) -> str:
    return bytes(ffi.string(getattr(memory, spec.c_name))).decode("utf-8", "replace")


def _inner(memory: Any, spec: FieldSpec) -> Struct:
    cls: type[Struct] = getattr(structs, spec.type_name)
    return from_c(cls, memory)


def _element(value: Any, spec: FieldSpec) -> Any:
    if spec.element == "struct":
        return _inner(value, spec)
    if spec.element == "handle":
        return value or None
    if spec.element == "pointer_handle":
        return _address(value) or None
    if spec.element == "enum":
        return _enum(value, spec)
    return _flags(value, spec) if spec.element == "flags" else value


def _array(memory: Any, spec: FieldSpec, where: str) -> tuple[Any, ...]:
    array = getattr(memory, spec.c_name)
    return tuple(_element(array[i], spec) for i in range(spec.length))


def _counted(memory: Any, spec: FieldSpec, where: str) -> tuple[Any, ...]:
    array, count = getattr(memory, spec.c_name), getattr(memory, spec.counter)
    if spec.kind == "inline_sequence" and count > spec.length:
        raise ValueError(f"{where}: {spec.counter} is {count}, and there is room for {spec.length}")
    if spec.kind == "sequence" and array == ffi.NULL:
        return ()
    return tuple(_element(array[i], spec) for i in range(count))


def _security(memory: Any, spec: FieldSpec, where: str) -> SecurityAttributes | None:
    pointer = getattr(memory, spec.c_name)
    return None if pointer == ffi.NULL else _one(SecurityAttributes, pointer[0])


_READERS: dict[str, Callable[[Any, FieldSpec, str], Any]] = {
    "int": _plain,
    "float": _plain,
    "enum": lambda memory, spec, where: _enum(getattr(memory, spec.c_name), spec),
    "flags": lambda memory, spec, where: _flags(getattr(memory, spec.c_name), spec),
    "bool": lambda memory, spec, where: bool(getattr(memory, spec.c_name)),
    "handle": _handle,
    "pointer_handle": _pointer_handle,
    "address": lambda memory, spec, where: _address(getattr(memory, spec.c_name)),
    "wstr": _wstr,
    "chars": _chars,
    "bytes": lambda memory, spec, where: bytes(ffi.buffer(getattr(memory, spec.c_name))),
    "struct": lambda memory, spec, where: _inner(getattr(memory, spec.c_name), spec),
    "security": _security,
    "array": _array,
    "sequence": _counted,
    "inline_sequence": _counted,
}
