"""Share GPU memory between processes, APIs and frameworks by operating-system handle.

The high-level API is `open_device()`, `Device.allocate()` and `open()`. The structures of the specification are in
`extmem.vk`; `extmem.raw` imports foreign objects; `extmem.process` starts child processes that inherit handles.
"""

# Names are imported on first use: the broker and `extmem.errors` are part of this package, and need neither the structs
# of the specification nor the devices. `_NAMES` is the public API; a test compares it with `__all__`.

from __future__ import annotations

from extmem.forks import no_fork as _no_fork

TYPE_CHECKING = False
"""Like `typing.TYPE_CHECKING`, but without that module, which takes longer to import than this one."""

if TYPE_CHECKING:
    from extmem import errors as errors
    from extmem import process as process
    from extmem import raw as raw
    from extmem import rules as rules
    from extmem import torch as torch
    from extmem import vk as vk
    from extmem.api import Buffer, Device, DeviceMemory, Image, enumerate_devices, open, open_device, open_handle
    from extmem.api.arrays import NamedArrays
    from extmem.api.fence import Fence
    from extmem.api.names import forget, names, open_async
    from extmem.api.safetensors import load_safetensors, save_safetensors
    from extmem.api.semaphore import Semaphore
    from extmem.api.share import share
    from extmem.api.slices import MemorySlice
    from extmem.api.sync_functions import open_timeline, wait_all, wait_any
    from extmem.api.timeline import Timeline
    from extmem.channel.base import Channel
    from extmem.channel.frame import Frame, WritableFrame
    from extmem.channel.functions import create_channel, open_channel
    from extmem.channel.info import ChannelInfo, ReaderInfo
    from extmem.channel.reader import ChannelReader
    from extmem.channel.writer import ChannelWriter
    from extmem.core.caller_warning import RuleWarning
    from extmem.core.naming import SharedName
    from extmem.errors import (
        AccessDeniedError,
        ChannelCorruptError,
        ChannelFullError,
        ChannelTakenError,
        DescriptorError,
        DriverError,
        ExtmemError,
        FramesLostError,
        GpuFrameLostError,
        HandleStateError,
        InternalError,
        InvalidHandleError,
        LiveViewError,
        NameInvalidError,
        NameNotFoundError,
        NameTakenError,
        NameTimeoutError,
        ObjectManagerError,
        ObjectTypeError,
        OutOfMemoryError,
        PeerError,
        PeerGoneError,
        PeerProtocolError,
        QuotaError,
        ReaderTooSlowError,
        RuleViolation,
        SecurityDescriptorError,
        StaleSourceError,
        UnsupportedError,
        WaitTimeoutError,
        WriterGoneError,
    )
    from extmem.handles import Access, FdHandle, KmtHandle, NtHandle
    from extmem.sharing.descriptor import ArrayInfo, Descriptor, ImageInfo, PlaneInfo
    from extmem.sharing.descriptor.sync import SyncDescriptor

__version__ = "0.1.0"

_MODULES = ("errors", "process", "raw", "rules", "torch", "vk")
_NAMES = {
    "extmem.errors": (
        "AccessDeniedError",
        "ChannelCorruptError",
        "ChannelFullError",
        "ChannelTakenError",
        "DescriptorError",
        "DriverError",
        "ExtmemError",
        "FramesLostError",
        "GpuFrameLostError",
        "HandleStateError",
        "InternalError",
        "InvalidHandleError",
        "LiveViewError",
        "NameInvalidError",
        "NameNotFoundError",
        "NameTakenError",
        "NameTimeoutError",
        "ObjectManagerError",
        "ObjectTypeError",
        "OutOfMemoryError",
        "PeerError",
        "PeerGoneError",
        "PeerProtocolError",
        "QuotaError",
        "ReaderTooSlowError",
        "RuleViolation",
        "SecurityDescriptorError",
        "StaleSourceError",
        "UnsupportedError",
        "WaitTimeoutError",
        "WriterGoneError",
    ),
    "extmem.channel.base": ("Channel",),
    "extmem.channel.frame": ("Frame", "WritableFrame"),
    "extmem.channel.functions": ("create_channel", "open_channel"),
    "extmem.channel.info": ("ChannelInfo", "ReaderInfo"),
    "extmem.channel.reader": ("ChannelReader",),
    "extmem.channel.writer": ("ChannelWriter",),
    "extmem.core.caller_warning": ("RuleWarning",),
    "extmem.core.naming": ("SharedName",),
    "extmem.handles": ("Access", "FdHandle", "KmtHandle", "NtHandle"),
    "extmem.sharing.descriptor": ("ArrayInfo", "Descriptor", "ImageInfo", "PlaneInfo"),
    "extmem.sharing.descriptor.sync": ("SyncDescriptor",),
    "extmem.api.arrays": ("NamedArrays",),
    "extmem.api.fence": ("Fence",),
    "extmem.api.names": ("forget", "names", "open_async"),
    "extmem.api.safetensors": ("load_safetensors", "save_safetensors"),
    "extmem.api.semaphore": ("Semaphore",),
    "extmem.api.timeline": ("Timeline",),
    "extmem.api.share": ("share",),
    "extmem.api.slices": ("MemorySlice",),
    "extmem.api.sync_functions": ("open_timeline", "wait_all", "wait_any"),
    "extmem.api": (
        "Buffer",
        "Device",
        "DeviceMemory",
        "Image",
        "enumerate_devices",
        "open",
        "open_device",
        "open_handle",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Access",
    "AccessDeniedError",
    "ArrayInfo",
    "Buffer",
    "Channel",
    "ChannelCorruptError",
    "ChannelFullError",
    "ChannelInfo",
    "ChannelReader",
    "ChannelTakenError",
    "ChannelWriter",
    "Descriptor",
    "DescriptorError",
    "Device",
    "DeviceMemory",
    "DriverError",
    "ExtmemError",
    "FdHandle",
    "Fence",
    "Frame",
    "FramesLostError",
    "GpuFrameLostError",
    "HandleStateError",
    "Image",
    "ImageInfo",
    "InternalError",
    "InvalidHandleError",
    "KmtHandle",
    "LiveViewError",
    "MemorySlice",
    "NameInvalidError",
    "NameNotFoundError",
    "NameTakenError",
    "NameTimeoutError",
    "NamedArrays",
    "NtHandle",
    "ObjectManagerError",
    "ObjectTypeError",
    "OutOfMemoryError",
    "PeerError",
    "PeerGoneError",
    "PeerProtocolError",
    "PlaneInfo",
    "QuotaError",
    "ReaderInfo",
    "ReaderTooSlowError",
    "RuleViolation",
    "RuleWarning",
    "SecurityDescriptorError",
    "Semaphore",
    "SharedName",
    "StaleSourceError",
    "SyncDescriptor",
    "Timeline",
    "UnsupportedError",
    "WaitTimeoutError",
    "WritableFrame",
    "WriterGoneError",
    "create_channel",
    "enumerate_devices",
    "errors",
    "forget",
    "load_safetensors",
    "names",
    "open",
    "open_async",
    "open_channel",
    "open_device",
    "open_handle",
    "open_timeline",
    "process",
    "raw",
    "rules",
    "save_safetensors",
    "share",
    "torch",
    "vk",
    "wait_all",
    "wait_any",
]


def __getattr__(name: str) -> object:
    home = f"extmem.{name}" if name in _MODULES else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'extmem' has no attribute {name!r}")
    with _no_fork():
        import importlib

        module = importlib.import_module(home)
        if name in _MODULES:
            return module
        value: object = getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
