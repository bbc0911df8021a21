"""The Vulkan loader: it is found, or the error states how to install it; commands by name."""

from __future__ import annotations

import ctypes.util
import sys

import pytest

from extmem.api import Device
from extmem.errors import UnsupportedError
from extmem.vk import loader
from extmem.vk.abi import ffi


def test_without_one_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_NAMES", ("libvulkan-absent.so.1", "vulkan-absent.dll"))
    with pytest.raises(UnsupportedError) as error:
        loader.Loader()
    assert "apt-get install libvulkan1" in str(error.value)
    assert "libvulkan-absent.so.1" in str(error.value) and "vulkan-absent.dll" in str(error.value)
    assert error.value.requires_one_of == ("libvulkan-absent.so.1", "vulkan-absent.dll")


def test_a_library_of_that_name_that_is_no_loader_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.util.find_library("kernel32" if sys.platform == "win32" else "c")
    assert library
    monkeypatch.setattr(loader, "_NAMES", (library,))
    with pytest.raises(UnsupportedError, match="vkGetInstanceProcAddr"):
        loader.Loader()


def test_the_next_name_is_tried(vulkan_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_NAMES", ("libvulkan-absent.so.1", *loader._NAMES))
    found = loader.Loader()
    assert found.commands.has("vkCreateInstance")
    assert found.commands.has("vkEnumerateInstanceVersion")


def test_a_command_that_is_missing_is_named_with_its_owner(vulkan_device: Device) -> None:
    commands = loader.Commands(lambda name: ffi.NULL, "the driver of 1999")
    assert not commands.has("vkAllocateMemory")
    with pytest.raises(UnsupportedError, match="the driver of 1999 has no command vkAllocateMemory") as error:
        commands.vkAllocateMemory  # noqa: B018  # looking it up is what fails
    assert error.value.requires_one_of == ("vkAllocateMemory",)
    real = vulkan_device.backend.device.commands  # type: ignore[attr-defined]  # a Vulkan driver's
    assert real.has("vkAllocateMemory") and real.vkAllocateMemory is real.vkAllocateMemory


def test_a_command_is_looked_up_once() -> None:
    asked: list[str] = []

    def lookup(name: str) -> object:
        asked.append(name)
        return ffi.cast("void *", 0x1000)

    commands = loader.Commands(lookup, "a loader")
    assert commands.vkFreeMemory is commands.vkFreeMemory
    assert asked == ["vkFreeMemory"]
    with pytest.raises(AttributeError):
        commands._private  # noqa: B018  # Python's own protocols look for such names
    assert asked == ["vkFreeMemory"]
