"""A process without a free fd uses a part of extmem, or a package, that it has not imported yet."""

from __future__ import annotations

import pytest

from extmem.testing.children import Peer

pytestmark = pytest.mark.linux_only("Windows does not limit a process's handles")

SETTING = """
import os, resource
import extmem
from extmem import raw, vk
T = vk.ExternalMemoryHandleTypeFlagBits
held = []
def take_all():
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        while True: held.append(os.open(os.devnull, os.O_RDONLY))
    except OSError: pass
def give_all():
    while held: os.close(held.pop())
"""
ON_HOST = """
d = extmem.open_device(kind="host")
m = d.allocate(4096, name="theirs")
m.map()[:] = bytes([7]) * 4096
"""
SCRIPTED = """
from extmem.testing import fake_vulkan
fake = fake_vulkan.FakeVulkan([fake_vulkan.INTEGRATED])
fake_vulkan.install_here(fake_vulkan.told_of(fake))
d = extmem.open_device(kind="vulkan")
m = d.allocate(4096, name="theirs")
h = m.export_handle(T.OPAQUE_WIN32)
"""
CALLS = {
    ON_HOST: {
        "another kind of device": "extmem.open_device(kind='vulkan').close()",
        "all devices": "len(extmem.enumerate_devices())",
        "an adopted device": "raw.adopt_device(0, 1, 1, extensions=[], queue_family_index=0)",
        "a struct in C memory": "bool(raw.c_struct(vk.MemoryAllocateInfo(1)).address)",
        "a package": "m.numpy().sum()",
        "the areas of the process": "d.get_memory_host_pointer_properties(T.HOST_ALLOCATION, 4096)",
    },
    SCRIPTED: {
        "the host device": "extmem.open_device(kind='host').close()",
        "a name on the device of the payload": "extmem.open('theirs').close()",
        "the areas of the process": "d.get_memory_host_pointer_properties(T.HOST_ALLOCATION, 4096)",
    },
}


@pytest.mark.parametrize("setting", CALLS, ids=["host", "scripted"])
def test_it_is_an_error_of_extmems_and_nothing_is_remembered_of_it(setting: str) -> None:
    """The import works as soon as an fd is free again."""
    with Peer() as peer:
        peer(SETTING + setting)
        for what, call in CALLS[setting].items():
            peer("take_all()")
            error = peer.fails(call)
            assert error.is_a("OutOfMemoryError") and "no file descriptor is left" in str(error), (what, error)
            peer("give_all()")
        for call in CALLS[setting].values():
            try:
                peer(call)
            except AssertionError as other:
                # Null handles and addresses where nothing is mapped: they are checked once the modules are loaded.
                assert "descriptor" not in str(other) and ("null" in str(other) or "mapped" in str(other))
        peer("m.close()")
