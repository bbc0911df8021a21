"""Programs do not call the classes whose objects the library makes; the error names the call to use."""

from __future__ import annotations

import inspect

import pytest

import extmem
from extmem.api.commands import Commands
from extmem.api.cuda_semaphore import CudaSemaphore, StreamTimeline
from extmem.arguments import MadeByFunctions

CALLED_BY_PROGRAMS = {
    "Access",
    "ArrayInfo",
    "ChannelInfo",
    "Descriptor",
    "FdHandle",
    "ImageInfo",
    "KmtHandle",
    "PlaneInfo",
    "ReaderInfo",
    "SharedName",
    "SyncDescriptor",
}
"""Values, and handles of numbers that a program has. Errors, too, are raised by programs."""


def public_classes() -> list[type]:
    named = [(name, getattr(extmem, name)) for name in extmem.__all__ if name not in CALLED_BY_PROGRAMS]
    found = [one for _, one in named if inspect.isclass(one) and not issubclass(one, Exception)]
    return [*found, Commands, CudaSemaphore, StreamTimeline]


@pytest.mark.parametrize(
    "given", [(), (1,), (1, 2), ("name", None), (object(), object(), object())], ids=lambda given: str(len(given))
)
@pytest.mark.parametrize("kind", public_classes(), ids=lambda kind: kind.__name__)
def test_a_class_of_the_library_names_the_call_to_use(kind: type, given: tuple[object, ...]) -> None:
    with pytest.raises(
        TypeError, match=rf"^{kind.__name__}\(…\) is called by the library alone.*; call .* to get one$"
    ):
        kind(*given)


def test_a_named_argument_is_listed() -> None:
    with pytest.raises(TypeError, match=r"got \(int, hold=str\); call Device.timeline"):
        extmem.Timeline(1, hold="x")  # type: ignore[arg-type]


def test_the_named_calls_make_objects() -> None:
    with extmem.open_device(kind="host") as device, device.timeline() as timeline, device.fence() as fence:
        with device.allocate(16) as memory, memory.export_handle() as handle:
            made = [type(one) for one in (device, timeline, fence, memory, handle)]
            assert made == [extmem.Device, extmem.Timeline, extmem.Fence, extmem.DeviceMemory, extmem.NtHandle]


def test_every_class_but_those_listed_has_the_base() -> None:
    assert all(issubclass(kind, MadeByFunctions) for kind in public_classes())
    assert not issubclass(extmem.FdHandle, MadeByFunctions)
