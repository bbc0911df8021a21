"""`extmem.share`: an array, tensor, buffer or tree of them, shared in one call.

How this works. Memory of extmem (and arrays over it) is shared as it is: the name is a second one for the same bytes.
Memory of a GPU that the driver can export is shared where it is, and kept until nobody has it any more. Other memory
has no handle that another process could open, so its contents are copied into new memory on the same device, where
`copy` permits that, and `memory.copied` says why. The name appears after the last byte was written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from extmem.api import slices
from extmem.api.device import DeviceMemory
from extmem.api.memory_kinds import memory_of
from extmem.api.slices import MemorySlice, slice_of
from extmem.arguments import a_type
from extmem.core import aliases, operations, shared_devices, sharing_arrays, views
from extmem.core.device_state import DeviceState
from extmem.core.sharing_arrays import How, Unpublished
from extmem.errors import UnsupportedError
from extmem.interop import array_sources, arrow_tables, device_sources, trees
from extmem.interop.array_sources import HOST, ArraySource
from extmem.owning import Uses, unsettled, work_off
from extmem.sharing import table
from extmem.sharing.descriptor import ArrayInfo
from extmem.sharing.elements import element_type
from extmem.sharing.kinds import PageRole
from extmem.sharing.table import Scalar, Spec, Table, Tree

__all__ = ["share"]


def share(
    x: Any,
    name: str | None = None,
    *,
    copy: bool | None = None,
    access: int | None = None,
    align: int = table.ALIGNMENT,
    keep: object = None,
    replace: bool = False,
    metadata: Mapping[str, Scalar] | None = None,
) -> DeviceMemory:
    """Share an array, tensor or buffer, or a tree of them, with other processes, which call `extmem.open(name)`.

    x: an array of NumPy, PyTorch, JAX or CuPy, a buffer (bytes, mmap, array.array), an object with an array interface
        or DLPack; or a dictionary, list or tuple of these, nested as you like, such as `model.state_dict()`. A tree
        becomes one payload (`NamedArrays`), whose names are the keys joined with dots. All arrays are on one device.
        Or a table of Arrow, or a data frame (pandas, Polars), which `NamedArrays.arrow` returns.
    name: the name for `extmem.open`. It exists as long as the memory that is returned, or any handle or import of it.
    copy: None copies if the memory of x cannot be shared itself, and `memory.copied` is the reason. False refuses then.
        True always copies. After a copy, changes of x are not seen by others. Nothing is copied between devices.
    access: rights that others get; default `Access.READ`. The memory that is returned can be written after a copy.
        Without the right to write, memory that CUDA allocated is mapped for reading on a CUDA device: the functions of
        extmem refuse to write, and a kernel that writes there by a pointer ends the CUDA context of its process.
    align: bytes that the offset of each array of a tree is a multiple of; a power of two.
    keep, replace: as for `Device.allocate`.
    metadata: text, finite numbers, booleans and None by names, which others read as `memory.metadata` (trees only).
    Returns memory that the caller closes. The gradient and `requires_grad` of a tensor are not shared.

    Errors: TypeError for what is not an array, for Python objects as elements, and keys that are not text; ValueError
    for a tree that contains itself, for the same name twice, and for numbers in the metadata that JSON lacks;
    UnsupportedError with the remedy for `copy=False`, for sparse, quantized, nested and other tensors without plain
    elements, and for arrays on several devices; those of a name (NameTakenError). After an error nothing is shared.
    """
    if copy is not None and not isinstance(copy, bool):
        raise TypeError(f"copy is {copy!r}, {a_type(copy)}; give True, False or None")
    if unsettled:
        work_off()
    how = sharing_arrays.how(name, access, keep, replace)
    table.check_alignment(operations.arguments.whole_number(align, "align"))
    if arrow_tables.is_table(x):
        if copy is False:
            raise UnsupportedError(
                f"the {type(x).__name__}: its columns become one stream of Arrow in one payload, which is always a "
                "copy; pass copy=None",
                requires_one_of=["copy=None"],
            )
        return _share_table(x, how, copy, _checked(metadata))
    if not trees.is_container(x):
        if _checked(metadata):
            raise TypeError("metadata belongs to a tree of arrays; share {'x': x} with it")
        return _share_one(x, how, copy)
    leaves, tree = trees.flatten(x)
    sources = [array_sources.source_of(leaf.value, leaf.path) for leaf in leaves]
    names = [leaf.name for leaf in leaves]
    if copy is False:
        raise _cannot_share_tree(sources)
    plan = _Plan.of_tree(names, sources, tree, int(align), _checked(metadata))
    return _copied(plan, how, copy)


def _share_one(x: Any, how: How, copy: bool | None) -> DeviceMemory:
    if not copy:
        part = x if isinstance(x, MemorySlice) else slice_of(x, ...) if isinstance(x, DeviceMemory) else None
        if part is not None:
            return slices.share_part(part, how)
    source = array_sources.source_of(x)
    why = ""
    if not copy:
        try:
            shared = _share_in_place(source, x, how)
        except UnsupportedError as error:
            if copy is False:
                raise
            why = str(error)
        else:
            if shared is not None:
                return shared
    if copy is False:
        raise _cannot_share(_reason([source], tree=False))
    return _copied(_Plan.of_array(source), how, copy, why)


def _share_table(x: Any, how: How, copy: bool | None, metadata: dict[str, Scalar]) -> DeviceMemory:
    """Share a data frame or a table of Arrow."""
    table_of = arrow_tables.table_of(x)
    octets = _Stream(table_of, arrow_tables.size_of(table_of))
    said = {**metadata, arrow_tables.MARK: arrow_tables.FORMAT}
    source = ArraySource(
        f"the {type(x).__name__}", element_type("uint8"), (octets.size,), None, HOST, (), octets, 0, True, _write_stream
    )
    return _copied(_Plan.of_tree([arrow_tables.ENTRY], [source], None, table.ALIGNMENT, said), how, copy)


class _Stream(msgspec.Struct, frozen=True):
    table: Any
    size: int


def _write_stream(octets: memoryview, source: ArraySource) -> None:
    arrow_tables.write(source.values.table, octets)


def _share_in_place(source: ArraySource, original: Any, how: How) -> DeviceMemory | None:
    """Share an array over memory of extmem as a part of that, an array on a GPU where it is; None for other arrays.

    Errors: UnsupportedError for memory of a GPU that the driver cannot export, with the reason.
    """
    reach = source.reach
    if not reach:
        return None
    if source.device != HOST:
        return DeviceMemory(*device_sources.share_in_place(source, original, how))
    found = views.payload_at(source.address, reach)
    if found is None:
        return None
    record, hold, start = found
    try:
        return DeviceMemory(*aliases.share_part(record, source.layout, start, reach, how))
    finally:
        hold.release()


class _Plan(msgspec.Struct, frozen=True):
    """What a new payload contains."""

    sources: list[ArraySource]
    offsets: list[int]
    """Where in the payload each array is; -1 for one whose bytes another one brings."""
    size: int
    array: ArrayInfo | None
    pages: dict[PageRole, bytes]

    @classmethod
    def of_array(cls, source: ArraySource) -> _Plan:
        """Return the plan of one array."""
        array = ArrayInfo(source.shape, source.element.text, source.steps)
        return cls([source], [0], max(source.nbytes, 1), array, {})

    @classmethod
    def of_tree(
        cls, names: list[str], sources: list[ArraySource], tree: Tree, align: int, metadata: dict[str, Scalar]
    ) -> _Plan:
        """Return the plan of named arrays. Arrays of the same bytes are stored once."""
        first: dict[tuple[object, ...], int] = {}
        specs = []
        for number, (name, source) in enumerate(zip(names, sources, strict=True)):
            known = first.setdefault(source.alias, number) if source.alias else number
            flags = table.REQUIRES_GRAD * source.requires_grad
            alias = known if known != number else None
            specs.append(Spec(name, source.element.text, source.shape, source.strides, alias, flags))
        entries, size = table.place(specs, align)
        offsets = [-1 if spec.alias_of is not None else e.offset for spec, e in zip(specs, entries, strict=True)]
        data = table.encode(Table(entries, align, metadata, tree))
        return cls(sources, offsets, size, None, {PageRole.TABLE: data})


def _copied(plan: _Plan, how: How, copy: bool | None, why: str = "") -> DeviceMemory:
    """Share a copy. why: the reason for it, if it is known."""
    device = _device_of(plan.sources)
    with Uses(device) as uses:
        stamps = len(plan.sources) if plan.pages else 0
        made = sharing_arrays.allocate(device, uses, plan.size, how, array=plan.array, pages=plan.pages, stamps=stamps)
        memory = memory_of(*made.memory)
        try:
            _fill(made, plan)
            sharing_arrays.publish(made)
        except BaseException:
            memory.close()
            raise
    made.memory.record.copied = "copy=True was passed" if copy else why or _reason(plan.sources, tree=bool(plan.pages))
    return memory


def _device_of(sources: list[ArraySource]) -> DeviceState:
    """Return the device of all arrays. Errors: UnsupportedError for several devices, with the arrays of each."""
    places: dict[str, list[str]] = {}
    for source in sources:
        places.setdefault(source.device, []).append(source.what)
    if len(places) > 1:
        listed = "; ".join(f"{place}: {', '.join(what[:3])}{' …' * (len(what) > 3)}" for place, what in places.items())
        raise UnsupportedError(
            f"the arrays are on {len(places)} devices ({listed}), and one payload is on one device; move them to one, "
            "or share a payload for each",
            requires_one_of=["arrays on one device"],
        )
    place = next(iter(places), HOST)
    return shared_devices.device_for(None) if place == HOST else device_sources.device_at(place)


def _fill(made: Unpublished, plan: _Plan) -> None:
    record = made.memory.record
    if any(source.device != HOST for source in plan.sources):
        placed = zip(plan.sources, plan.offsets, strict=True)
        device_sources.copy_all([(source, offset) for source, offset in placed if offset >= 0], record)
        return
    whole = views.view_of_all(record, [])
    for source, offset in zip(plan.sources, plan.offsets, strict=True):
        if offset >= 0 and source.nbytes:
            source.copy_to(whole[offset : offset + source.nbytes], source)


def _reason(sources: list[ArraySource], *, tree: bool) -> str:
    """Return why the arrays cannot be shared where they are. tree: whether they become one payload."""
    if not sources:
        return "there are no arrays"
    first = sources[0]
    what = first.what if len(sources) == 1 else f"{first.what} and {len(sources) - 1} more"
    if first.device == HOST:
        if tree and _is_in_a_payload(first):
            return f"{what}: the arrays of a tree are copied into one payload, memory of extmem too"
        return f"{what}: ordinary memory of a process has no handle"
    if tree:
        return f"{what}: the arrays of a tree lie side by side in one payload, and on {first.device} they do not"
    return f"{what}: a payload does not describe the strides {first.own_strides} of the shape {first.shape}"


def _is_in_a_payload(source: ArraySource) -> bool:
    """Return whether an array of the host is over memory of extmem, so that it could be shared alone where it is."""
    found = views.payload_at(source.address, source.reach) if source.reach else None
    if found is None:
        return False
    found[1].release()
    return True


def _cannot_share_tree(sources: list[ArraySource]) -> UnsupportedError:
    if not sources or sources[0].device == HOST:
        return UnsupportedError(
            f"{_reason(sources, tree=True)}, and a tree becomes one payload, so its arrays are always copied on the "
            "host: pass copy=None, and use memory.numpy() or memory.torch() of the result in place of the arrays; or "
            "share each array of memory of extmem under a name of its own",
            requires_one_of=["memory of extmem", "copy=None"],
        )
    return UnsupportedError(
        f"{_reason(sources, tree=True)}, so others cannot open them together without a copy: share each array under a "
        "name of its own, which needs no copy for memory of extmem.torch.pool() or extmem.torch.make_shareable(), or "
        "pass copy=None",
        requires_one_of=["extmem.torch.pool()", "extmem.torch.make_shareable()", "memory of extmem", "copy=None"],
    )


def _cannot_share(reason: str) -> UnsupportedError:
    return UnsupportedError(
        f"{reason}, so others cannot open it without a copy: allocate the memory with "
        "extmem.open_device().allocate(shape, dtype, name=…) and write into memory.numpy() or memory.torch(), or pass "
        "copy=None",
        requires_one_of=["memory of extmem", "copy=None"],
    )


def _checked(metadata: Mapping[str, Scalar] | None) -> dict[str, Scalar]:
    """Return the metadata as a dictionary of plain values.

    Errors: TypeError for keys and values of other types; ValueError for numbers that JSON lacks.
    """
    found: dict[str, Scalar] = {}
    if metadata is None:
        return found
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is {a_type(metadata)}; give a dictionary of text, numbers, booleans and None")
    for key, value in metadata.items():
        if not isinstance(key, str):
            raise TypeError(f"the metadata has the key {key!r}, {a_type(key)}; give a str")
        if value is not None and not isinstance(value, (str, bool, int, float)):
            raise TypeError(
                f"metadata[{key!r}] is {a_type(value)}; give text, numbers, booleans or None, and share "
                "arrays as arrays"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(
                f"metadata[{key!r}] is {value}, and the metadata is JSON, which has finite numbers alone; give it as "
                "text, or share it as an array"
            )
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
            raise ValueError(f"metadata[{key!r}] is {value:.4g}, which does not fit into 64 bits; give text")
        found[str.__str__(key)] = _plain(value)
    return found


def _plain(value: Scalar) -> Scalar:
    """Return the value itself; for one of a subclass, such as an enum or `numpy.float64`, that of the plain type."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return float.__float__(value)
    return int.__int__(value) if isinstance(value, int) and not isinstance(value, bool) else value
