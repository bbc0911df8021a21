"""Every public method of a closed object raises HandleStateError, on each kind of device; its description can be read.

The methods are found in the classes (tests/operations.py), so that a new one is tested without an edit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import extmem
from extmem import raw, vk
from extmem.api import Device
from extmem.errors import HandleStateError, UnsupportedError
from extmem.testing import fake_vulkan
from extmem.testing.children import Peer
from tests import operations
from tests.tagged_payloads import World

_SYNC = {"device", "descriptor", "name", "read_only", "closed", "close", "repr"}
READABLE = {
    "Device": {"kind", "identity", "name", "uuid", "live_allocations", "has_room", "strict_kmt", "close", "repr"},
    "DeviceMemory": {
        "gpu_holds",
        "device",
        "descriptor",
        "name",
        "size",
        "allocation_size",
        "memory_type_index",
        "host_visible",
    }
    | {"resource", "read_only", "closed", "close", "repr", "__array_interface__"}
    | {"shape", "dtype", "strides", "nbytes", "copied", "superseded"},
    "Buffer": {"device", "size", "create_info", "requirements", "memory", "memory_offset", "closed", "close", "repr"}
    | {"validation_key", "submitted_state", "transfers"},
    "Image": {"device", "create_info", "requirements", "memory", "memory_offset", "closed", "close", "repr"}
    | {"submitted_state"},
    "Commands": {"the block's end"},
    "Semaphore": _SYNC | {"semaphore_type"},
    "Timeline": _SYNC | {"semaphore_type"},
    "Fence": _SYNC,
}
"""What can be read of a closed object of each class: its description, and facts that were recorded when it was made."""


@contextlib.contextmanager
def opened(kind: str, request: pytest.FixtureRequest) -> Iterator[Device]:
    if kind == "scripted":
        fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED], remembers=False)
        with fake_vulkan.installed(fake), extmem.open_device(kind="vulkan") as device:
            yield device
        assert not fake.misuses, [str(misuse) for misuse in fake.misuses]
    else:
        yield request.getfixturevalue("vulkan_device" if kind == "vulkan" else "device")


def answers(scene: operations.Scene, case: operations.Case) -> dict[str, object]:
    """Return the methods of a closed object that do not raise HandleStateError, with what they did instead."""
    found: dict[str, object] = {}
    for name, operation in operations.operations_of(case).items():
        if name in READABLE[case.name] or name.startswith("extmem."):
            continue  # a function of the module uses no object that is closed
        try:
            found[name] = operation(scene)
        except (HandleStateError, operations.LacksError):
            pass
        except Exception as error:  # noqa: BLE001  # reported to the caller of this function
            found[name] = error
    return found


@pytest.mark.parametrize("cls", sorted(READABLE))
@pytest.mark.parametrize("kind", ["host", "vulkan", "scripted"])
def test_every_method_of_a_closed_object_raises(kind: str, cls: str, request: pytest.FixtureRequest) -> None:
    with opened(kind, request) as device:
        world = World(device)
        case = operations.case(world, cls)
        if case is None:
            return
        scene = case.make(world)
        try:
            if cls == "Commands":
                scene.thing.__exit__(None, None, None)
            else:
                scene.thing.close()
            assert answers(scene, case) == {}
        finally:
            scene.end()


@pytest.mark.parametrize("kind", ["host", "vulkan", "scripted"])
def test_the_same_methods_of_an_open_device_answer(kind: str, request: pytest.FixtureRequest) -> None:
    with opened(kind, request) as device:
        world = World(device)
        case = operations.case(world, "Device")
        assert case is not None
        scene = case.make(world)
        try:
            for name, operation in operations.operations_of(case).items():
                if name != "close":
                    with contextlib.suppress(UnsupportedError):
                        made = operation(scene)
                        if hasattr(made, "close"):
                            made.close()
        finally:
            scene.end()


@pytest.mark.parametrize("kind", ["vulkan", "scripted"])
def test_raw_handles_of_a_closed_device_are_refused(kind: str, request: pytest.FixtureRequest) -> None:
    with opened(kind, request):
        device = extmem.open_device(kind="vulkan")
        memory = device.allocate(64)
        assert raw.vk_device(device) and raw.vk_handles(device) and raw.vk_memory(memory)
        memory.close()
        device.close()
        for call in (lambda: raw.vk_device(device), lambda: raw.vk_handles(device), lambda: raw.vk_memory(memory)):
            with pytest.raises(HandleStateError, match="closed"):
                call()


def test_memory_of_a_buffer_whose_device_is_closed_cannot_be_asked_for(device: Device) -> None:
    other = extmem.open_device(kind="host")
    image = other.create_image(operations._PICTURE)
    asked = vk.ImageSubresource(vk.ImageAspectFlagBits.COLOR, 0, 0)
    assert image.subresource_layout(asked).size
    other.close()
    with pytest.raises(HandleStateError, match="closed"):
        image.subresource_layout(asked)
    image.close()


FORKED = """
import os, sys
import extmem
from tests import operations
from tests.unit.api.test_closed import READABLE, answers
from tests.tagged_payloads import World


def in_a_child(kind):
    with extmem.open_device(kind=kind) as device:
        case = operations.case(World(device), "Device")
        scene = case.make(World(device))
        image = operations.case(World(device), "Image")
        picture = image.make(World(device))
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                found = repr({**answers(scene, case), **answers(picture, image)})
            except BaseException as error:
                found = repr(error)
            os.write(writing, found.encode())
            os._exit(0)
        os.close(writing)
        with open(reading, "rb") as file:
            output = file.read().decode()
        os.waitpid(pid, 0)
        scene.end()
        picture.end()
        return output
"""


@pytest.mark.linux_only("Windows has no fork")
@pytest.mark.parametrize("kind", ["host", "vulkan"])
def test_every_method_of_a_device_raises_in_a_forked_child(kind: str, peer: Peer, request: Any) -> None:
    if kind == "vulkan":
        request.getfixturevalue("vulkan_device")
    peer("import warnings\nwarnings.simplefilter('ignore')\n" + FORKED)
    assert peer("in_a_child(kind)", kind=kind) == "{}"
