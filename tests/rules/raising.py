"""Raising rules by public calls: the wrong call of each case is made on a device.

How this works. The wrong call of a case (`tests.rules.cases`) ends in a function of `extmem.rules`, with structs and
facts. `structs_of` takes the structs, and `replay` gives them to the command of a device that the function is for: the
host's, and a scripted GPU's. Where the rule depends on more than the structs (what memory is bound to, what a payload
is), the call is made by hand in `tests.rules.recipes`.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from unittest import mock

import extmem
from extmem import rules, vk
from extmem.errors import ExtmemError
from tests.rules.cases import CASES

__all__ = ["broken_by", "replay", "structs_of"]

Call = tuple[str, tuple[Any, ...]]


@contextlib.contextmanager
def _recorded(calls: list[Call]) -> Iterator[None]:
    """Record each call of a function `rules.check_…` with its name and arguments."""
    with contextlib.ExitStack() as stack:
        for name in rules.__all__:
            if name.startswith("check_"):
                stack.enter_context(mock.patch.object(rules, name, _recording(calls, name, getattr(rules, name))))
        yield


def _recording(calls: list[Call], name: str, check: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*arguments: Any, **more: Any) -> Any:
        calls.append((name, arguments))
        return check(*arguments, **more)

    return noted


def structs_of(vuid: str) -> list[Call]:
    """Return the arguments that the wrong call of the rule's case passes to the rules."""
    calls: list[Call] = []
    with _recorded(calls):
        CASES[vuid].wrong()
    return copy.deepcopy(calls)


def broken_by(call: Callable[[], object]) -> set[str]:
    """Return the rules in the error that a call raises; none if it raises nothing, or another error."""
    try:
        made = call()
    except ExtmemError as error:
        return {violation.vuid for violation in getattr(error, "violations", ())}
    except (TypeError, ValueError):
        return set()
    close = getattr(made, "close", None)
    if close is not None:
        close()
    return set()


def replay(device: extmem.Device, calls: Iterable[Call]) -> set[str]:
    """Return the rules that the same structs break when they are passed to a device's commands."""
    found: set[str] = set()
    for name, arguments in calls:
        command = _COMMANDS.get(name)
        if command is not None:
            found |= broken_by(lambda command=command, given=arguments: command(device, *given))  # type: ignore[misc]
    return found


_COMMANDS: dict[str, Callable[..., object]] = {
    "check_allocate_memory": lambda device, info, *_: device.allocate_memory(info),
    "check_create_buffer": lambda device, info, *_: device.create_buffer(info),
    "check_create_image": lambda device, info, *_: device.create_image(info),
    "check_external_buffer_info": lambda device, info, *_: device.get_physical_device_external_buffer_properties(info),
    "check_external_image_format_info": lambda device, info, *_: device.get_physical_device_image_format_properties2(
        vk.PhysicalDeviceImageFormatInfo2(vk.Format.R8G8B8A8_UNORM, vk.ImageType.TYPE_2D, usage=1, p_next=info)
        if isinstance(info, vk.PhysicalDeviceExternalImageFormatInfo)
        else info
    ),
    "check_create_semaphore": lambda device, info, *_: device.create_semaphore(info),
    "check_create_fence": lambda device, info, *_: device.create_fence(info),
    "check_external_semaphore_info": lambda device, info: device.get_physical_device_external_semaphore_properties(
        info
    ),
    "check_external_fence_info": lambda device, info: device.get_physical_device_external_fence_properties(info),
    "check_format_properties": lambda device, vk_format, *_: device.get_physical_device_format_properties2(vk_format),
    "check_memory_win32_handle_properties": lambda device, kind, handle, *_: device.get_memory_win32_handle_properties(
        kind, handle
    ),
    "check_memory_fd_properties": lambda device, kind, fd, *_: device.get_memory_fd_properties(kind, fd),
    "check_memory_host_pointer_properties": lambda device, kind, address, *_: device.get_memory_host_pointer_properties(
        kind, address
    ),
}
