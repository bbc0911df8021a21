"""VkInstances: creating, querying, closing, and the errors where there are none."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import extmem
from extmem.devices import vulkan
from extmem.devices.vulkan.backend import VulkanBackend
from extmem.devices.vulkan.instance import Instance
from extmem.errors import HandleStateError, UnsupportedError
from extmem.testing.children import Peer
from extmem.vk import loader


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has not loaded Vulkan yet."""
    monkeypatch.setattr(vulkan, "_instances", {})
    monkeypatch.setattr(vulkan, "_missing", {})


def test_it_is_closed_once_and_answers_nothing_afterwards(backend: VulkanBackend) -> None:
    instance = Instance()
    assert instance.raw
    assert instance.physical_devices() is instance.physical_devices(), "enumerated once"
    instance.close()
    instance.close()
    with pytest.raises(HandleStateError, match="instance is closed"):
        instance.physical_devices()


def test_one_instance_serves_a_process(backend: VulkanBackend) -> None:
    assert vulkan.shared_instance() is vulkan.shared_instance() is backend.device.physical.instance
    assert [offer.kind for offer in vulkan.offers()] and vulkan.missing() == ""


def test_a_loader_of_1_0_is_refused() -> None:
    old: Any = SimpleNamespace(commands=SimpleNamespace(has=lambda name: name != "vkEnumerateInstanceVersion"))
    with pytest.raises(UnsupportedError, match=r"Vulkan 1\.0; external memory needs 1\.1") as error:
        Instance(old)
    assert error.value.requires_one_of == ("Vulkan 1.1",)


def test_without_a_loader_there_is_the_host_device_and_a_reason(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "_NAMES", ("libvulkan-not-here.so.9",))
    assert vulkan.missing() == "" and vulkan.offers() == [] and vulkan.offers() == []
    assert "libvulkan-not-here.so.9" in vulkan.missing() and "libvulkan1" in vulkan.missing()
    assert [identity.device_name for identity in extmem.enumerate_devices()]
    with pytest.raises(
        UnsupportedError, match=r"no device here has kind 'vulkan'; there is: (cuda .*)?host .*not to be had: .*"
    ):
        extmem.open_device(kind="vulkan")


def test_drivers_without_a_device_are_reported(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vulkan, "shared_instance", lambda: SimpleNamespace(physical_devices=list))
    assert vulkan.offers() == [] and "no device of Vulkan 1.1" in vulkan.missing()


@pytest.mark.linux_only("Windows's loader finds its drivers in the registry")
@pytest.mark.parametrize(
    ("content", "result"),
    [
        (None, "VK_ERROR_INCOMPATIBLE_DRIVER"),
        ('{"file_format_version": "1.0.0", "ICD": {"library_path": "/no"}}', "VK_ERROR_INCOMPATIBLE_DRIVER"),
        ("not json", "vkCreateInstance on Vulkan returned VK_ERROR_"),  # loaders differ in which
    ],
)
def test_without_a_driver_that_works_the_reason_is_reported(
    backend: VulkanBackend, tmp_path: Path, content: str | None, result: str
) -> None:
    """This process has a loader, or there would be no `driver`; the other one finds none."""
    manifest = tmp_path / "driver.json"
    if content is not None:
        manifest.write_text(content)
    with Peer(env={"VK_DRIVER_FILES": str(manifest), "VK_ICD_FILENAMES": str(manifest)}) as peer:
        error = peer.fails("extmem.open_device(kind='vulkan')")
        assert error.is_a(UnsupportedError) and result in error.message
        assert ("mesa-vulkan-drivers" in error.message) == ("INCOMPATIBLE" in error.message)
        assert peer("extmem.open_device(kind='host').kind") == "host"


def test_forgetting_looks_again(anew: None, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [UnsupportedError("no loader yet")]

    def sometimes() -> Any:
        if answers:
            raise answers.pop()
        return SimpleNamespace(physical_devices=lambda: ["a device"])

    monkeypatch.setattr(vulkan, "shared_instance", sometimes)
    monkeypatch.setattr(vulkan, "_offer", lambda physical: f"an offer of {physical}")
    assert vulkan.offers() == [] and vulkan.missing() == "no loader yet"
    assert vulkan.offers() == [], "a process enumerates them once"
    vulkan.forget()
    assert vulkan.offers() == ["an offer of a device"] and vulkan.missing() == ""
