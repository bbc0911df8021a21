"""Property: every struct, with a chain, is equal after conversion to C memory and back."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extmem import vk
from extmem.vk import abi
from extmem.vk._fields import FieldSpec
from extmem.vk._generated.marshal import FIELDS

ffi = abi.ffi
CLASSES = {name: getattr(vk, name.removeprefix("Vk")) for name in FIELDS}
CHAINABLE = [name for name, cls in CLASSES.items() if issubclass(cls, vk.ChainStruct)]
POINTERS = st.integers(1, sys.maxsize * 2 + 1)
HANDLES = st.none() | POINTERS
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def ints_of(c_type: Any) -> st.SearchStrategy[int]:
    bits = 8 * ffi.sizeof(c_type)
    signed = int(ffi.cast(c_type, -1)) < 0
    return st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)


def known_or_not(cls: Any) -> Any:
    def make(number: int) -> Any:
        try:
            return cls(number)
        except ValueError:
            return number

    return make


def one(kind: str, spec: FieldSpec, c_type: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the value of one member, or of one element."""
    if kind == "struct":
        return struct(f"Vk{spec.type_name}", depth=0)
    if kind in ("enum", "flags"):
        cls = getattr(vk, spec.type_name)
        return (st.sampled_from(list(cls)) | ints_of(c_type)).map(known_or_not(cls))
    simple: dict[str, st.SearchStrategy[Any]] = {
        "bool": st.booleans(),
        "float": st.floats(width=32, allow_nan=False),
        "handle": HANDLES,
        "pointer_handle": HANDLES,
        "address": st.just(0) | POINTERS,
        "wstr": st.none() | NAMES,
        "chars": NAMES,
        "bytes": st.binary(min_size=spec.length, max_size=spec.length),
        "security": st.none() | st.builds(vk.SecurityAttributes, HANDLES, st.booleans()),
    }
    return simple[kind] if kind in simple else ints_of(c_type)


def sequences(spec: FieldSpec, c_type: Any, size: int) -> st.SearchStrategy[Any]:
    element = one(spec.element, spec, c_type.item)
    return st.lists(element, min_size=size, max_size=size).map(tuple)


@st.composite
def struct(draw: st.DrawFn, name: str, depth: int = 2) -> Any:
    values: dict[str, Any] = {}
    types = dict(ffi.typeof(name).fields)
    sizes: dict[str, int] = {}
    for spec in FIELDS[name]:
        c_type = types[spec.c_name].type
        if spec.kind in ("sequence", "inline_sequence"):
            size = sizes.setdefault(spec.counter, draw(st.integers(0, min(spec.length or 4, 4))))
            values[spec.name] = draw(sequences(spec, c_type, size))
        elif spec.kind == "array":
            values[spec.name] = draw(sequences(spec, c_type, spec.length))
        else:
            values[spec.name] = draw(one(spec.kind, spec, c_type))
    if name in CHAINABLE and depth:
        following = draw(st.none() | st.sampled_from(CHAINABLE).flatmap(lambda n: struct(n, depth=depth - 1)))
        values["p_next"] = following
    return CLASSES[name](**values)


@pytest.mark.parametrize("name", FIELDS)
def test_what_goes_to_c_comes_back_equal(name: str) -> None:
    @SETTINGS
    @given(struct(name))
    def check(value: Any) -> None:
        memory = abi.to_c(value)
        assert abi.from_c(CLASSES[name], memory.cdata) == value
        assert abi.from_c(CLASSES[name], memory.address) == value

    check()


@SETTINGS
@given(struct("VkMemoryAllocateInfo"), struct("VkMemoryAllocateInfo"))
def test_what_comes_back_shares_nothing(one: Any, two: Any) -> None:
    """Reading copies: later changes of the C memory do not change the struct that was read."""
    memory = abi.to_c(one)
    read = abi.from_c(vk.MemoryAllocateInfo, memory)
    memory.cdata.allocationSize = two.allocation_size
    assert read == one
