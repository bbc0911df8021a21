"""`extmem.load_safetensors` and `extmem.save_safetensors`: files of named tensors, straight into and out of payloads.

How this works. A file is read once on a machine: the first process that asks for a name reads it, and the others wait
in the object manager until the name appears. Which is the first is decided by a second name, which only one process can
have; it ends with that process, so another one reads the file if the first is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extmem.api import functions
from extmem.api.arrays import NamedArrays, NamedSelection
from extmem.api.device import Device, DeviceMemory
from extmem.api.memory_kinds import memory_of
from extmem.api.slices import MemorySlice
from extmem.arguments import a_type, whole_number
from extmem.core import shared_devices, sharing_arrays
from extmem.core.device_state import DeviceState
from extmem.core.sharing_arrays import How
from extmem.errors import NameNotFoundError, NameTakenError
from extmem.interop import device_sources, placed_reads, safetensors_files
from extmem.interop.new_files import NewFile
from extmem.interop.placed_reads import PlacedTensors
from extmem.interop.safetensors_files import Header, OpenFile
from extmem.interop.transfer import Progress, check_progress
from extmem.objects import Status, error_for
from extmem.owning import Uses, unsettled, work_off
from extmem.sharing import table
from extmem.sharing.elements import element_type
from extmem.sharing.kinds import PageRole
from extmem.sharing.layout import contiguous_strides
from extmem.sharing.table import Spec, Table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["load_safetensors", "save_safetensors"]

_HOST = ("cpu", "host")
_PIECE = 64 << 20
"""Bytes that are read from a GPU at once."""
_LOOK_AGAIN_S = 0.5
"""Seconds after which a process that waits looks whether the one that reads the file still exists."""


def load_safetensors(
    path: str | os.PathLike[str],
    name: str | None = None,
    *,
    device: Device | str | None = None,
    access: int | None = None,
    align: int = table.ALIGNMENT,
    keep: object = None,
    progress: Progress | None = None,
) -> NamedArrays:
    """Read a safetensors file into shared memory, once for all processes of the machine that pass this name.

    The first process reads each tensor straight to its place; others get the same memory, and wait for it if it is
    still being read. No copy of the file stays in the page cache. The result is a mapping: `memory.torch()` is a state
    dictionary without a copy.

    name: the name of the memory; None for memory without a name, which is read for this process.
    device: where the tensors are: None or "cpu" for the host, "cuda" or "cuda:1", or a `Device`.
    access: rights that others get; default `Access.READ`. keep: as for `Device.allocate`.
    align: bytes that the offset of each tensor is a multiple of.
    progress: called with the bytes that were read and the bytes in all, in this thread, if this process reads the file.
        Its exception ends the reading.

    Errors: OSError; ValueError for a file that is not complete, lies about its tensors, has an unknown type, or is
    changed while it is read; NameTakenError if the name is that of other memory; OutOfMemoryError. After an error the
    name does not exist.
    """
    if unsettled:
        work_off()
    how = sharing_arrays.how(name, access, keep)
    align = whole_number(align, "align")
    table.check_alignment(align)
    check_progress(progress)
    _check_device(device)
    with OpenFile(path) as file:
        header = safetensors_files.read_header(file)

        def load() -> NamedArrays:
            return _load(file, header, how, device, align, progress)

        return load() if how.name is None else _once(how.name, file, header, load, device)


def _once(
    name: str, file: OpenFile, header: Header, load: Callable[[], NamedArrays], device: Device | str | None
) -> NamedArrays:
    """Open the name, or read the file if no other process does."""
    host = shared_devices.device_for(None)
    while True:
        found = _opened(name, file, header, device, None)
        if found is not None:
            return found
        try:
            with Uses(host) as uses:
                claim = sharing_arrays.allocate(host, uses, 1, sharing_arrays.how(f"{name}.loading", None))
                claimed = DeviceMemory(*claim.memory)
        except NameTakenError:
            claim = None
        if claim is not None:
            with claimed:
                # The name is taken if memory got it meanwhile, or on Windows still has it: a loader that was killed may
                # lose its claim before it loses the memory that it had not published.
                with contextlib.suppress(NameTakenError):
                    sharing_arrays.publish(claim)
                    found = _opened(name, file, header, device, None)
                    return load() if found is None else found
        found = _opened(name, file, header, device, _LOOK_AGAIN_S)
        if found is not None:
            return found


def _opened(
    name: str, file: OpenFile, header: Header, device: Device | str | None, timeout: float | None
) -> NamedArrays | None:
    """Return the memory of that name; None if there is none. Errors: NameTakenError if it holds other arrays."""
    try:
        found = functions.open(name, timeout=timeout, device=device if isinstance(device, Device) else None)
    except NameNotFoundError:
        return None
    problem = f"with other arrays than {file.path!r}"
    try:
        if isinstance(found, NamedArrays):
            entries = {entry.name: (entry.dtype, entry.shape) for entry in found.table.entries}
            if entries == {one.name: (one.element.text, one.shape) for one in header.tensors}:
                if _is_on(found, device):
                    return found
                problem = f"on {found.device.name}, and device={device!r} was passed"
        text = found.what()
    except BaseException:
        found.close()
        raise
    found.close()
    raise error_for(
        Status.OBJECT_NAME_COLLISION,
        f"The name {name!r} is that of memory ({text}) {problem}. Choose another name.",
    )


def _load(
    file: OpenFile, header: Header, how: How, device: Device | str | None, align: int, progress: Progress | None
) -> NamedArrays:
    entries, size = table.place((Spec(one.name, one.element.text, one.shape) for one in header.tensors), align)
    data = table.encode(Table(entries, align, dict(header.metadata)))
    target = _device_of(device)
    with Uses(target) as uses:
        made = sharing_arrays.allocate(target, uses, size, how, pages={PageRole.TABLE: data}, stamps=len(entries))
        memory = memory_of(*made.memory)
        try:
            placed = PlacedTensors(file, header.tensors, [entry.offset for entry in entries])
            placed_reads.read_to(made.memory.record, memory.host_visible, placed, progress)
            sharing_arrays.publish(made)
        except BaseException:
            memory.close()
            raise
    if not isinstance(memory, NamedArrays):  # pragma: no cover  (it has a table)
        raise TypeError(f"{memory!r} holds no named arrays")
    return memory


def _check_device(device: Device | str | None) -> None:
    if device is None or isinstance(device, Device) or device in _HOST:
        return
    if isinstance(device, str) and (device == "cuda" or (device[:5] == "cuda:" and device[5:].isdecimal())):
        return
    raise ValueError(f"device is {device!r}; give 'cpu', 'cuda', 'cuda:1', a Device, or None for the host")


def _device_of(device: Device | str | None) -> DeviceState:
    if isinstance(device, Device):
        return device
    if device is None or device in _HOST:
        return shared_devices.device_for(None)
    return device_sources.device_at(device if ":" in device else "cuda:0")


def _is_on(found: DeviceMemory, device: Device | str | None) -> bool:
    """Return whether memory that was opened is where the caller asks for it."""
    if device is None or isinstance(device, Device):
        return True  # wherever it is; `open` was given the device
    if device in _HOST or found.device.kind == "host":
        return device in _HOST and found.device.kind == "host"
    return device == "cuda" or found.device.uuid == device_sources.device_at(device).uuid


def save_safetensors(
    arrays: NamedArrays | NamedSelection, path: str | os.PathLike[str], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write named arrays into a safetensors file, which appears when it is complete.

    arrays: memory of named arrays, or a selection of it. Arrays in another order than row-major are written in that.
        Arrays that share bytes (tied weights) are written once for each name, as the format has no aliases.
    metadata: text by names, instead of `arrays.metadata`, of which numbers are written as JSON.
    path: a file that exists is replaced, and keeps its permissions; a symbolic link is followed.
    Errors: OSError; UnsupportedError for an element type that the format lacks; TypeError; ValueError for a path that
    is no file. The file is then as before.
    """
    if not isinstance(arrays, (NamedArrays, NamedSelection)):
        raise TypeError(f"arrays is {a_type(arrays)}; give NamedArrays: extmem.share({{name: array}})")
    parts = arrays.items()
    listed = [(name, part.dtype, part.shape, part.nbytes) for name, part in parts]
    whole = arrays if isinstance(arrays, NamedArrays) else parts[0][1].memory if parts else None
    said: Mapping[str, Any] = metadata if metadata is not None else getattr(whole, "metadata", {})
    if not isinstance(said, Mapping) or not all(isinstance(key, str) for key in said):
        raise TypeError(f"metadata is {a_type(said)}; give a dictionary of text by names")
    notes = {key: value if isinstance(value, str) else json.dumps(value) for key, value in said.items()}
    start, order = safetensors_files.encode_header(listed, notes)
    with NewFile(path) as file:
        file.write(start)
        for number in order:
            _write(file, parts[number][1])
        file.finish()


def _write(file: NewFile, part: MemorySlice) -> None:
    if part.strides != contiguous_strides(part.shape, element_type(part.dtype).step):
        octets: Any = part.read().copy(order="C").reshape(-1).view("uint8")
        file.write(memoryview(octets))
    elif part.memory.host_visible:
        with part.memory.map() as octets:
            file.write(octets[part.offset : part.offset + part.nbytes])
    else:
        for begin in range(0, part.nbytes, _PIECE):
            size = min(_PIECE, part.nbytes - begin)
            file.write(memoryview(part.memory.read_bytes(part.offset + begin, size)))
