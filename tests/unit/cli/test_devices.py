"""`extmem devices` with Vulkan: what it shows, what it does not need, and what it does when a driver fails."""

from __future__ import annotations

import json
from typing import Any, NoReturn

import msgspec
import pytest
from click.testing import CliRunner

from extmem.api import Device
from extmem.cli import _app
from extmem.cli.devices import describe_offer
from extmem.devices import cuda, host, select, vulkan
from extmem.devices.backend import Offer
from extmem.devices.vulkan.physical import PhysicalDevice
from extmem.errors import DriverError, UnsupportedError
from tests.vulkan_bed import SHARES_NOTHING


def shown(monkeypatch: pytest.MonkeyPatch, *arguments: str, columns: str = "80") -> Any:
    monkeypatch.setenv("COLUMNS", columns)
    return CliRunner().invoke(_app.app, ["devices", *arguments])


@SHARES_NOTHING
def test_the_vulkan_device_is_shown_without_being_opened(
    vulkan_device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(physical: PhysicalDevice) -> NoReturn:
        raise AssertionError(f"a VkDevice of {physical} was created")

    monkeypatch.setattr(vulkan, "_open", opened)
    listed = json.loads(shown(monkeypatch, "--json").stdout)
    (found,) = [facts for facts in listed if facts["device_uuid"] == vulkan_device.uuid.hex()]
    assert found["kind"] == "vulkan" and found["problem"] == "" and found["name"] == vulkan_device.name
    assert len(found["memory_types"]) == len(vulkan_device.memory_properties.memory_types)
    kinds = {kind["type"]: kind for kind in found["handle_types"]}
    for name, other in (("OPAQUE_WIN32", "OPAQUE_WIN32_KMT"), ("OPAQUE_WIN32_KMT", "OPAQUE_WIN32")):
        answer = kinds[name]["buffer"]
        assert answer["export"] and answer["import"]
        assert name in answer["compatible"] and other not in answer["compatible"]
        assert name in answer["export_from_imported"]
        assert kinds[name]["images"] and all({"format", "tiling", "usage"} <= set(one) for one in kinds[name]["images"])
    assert not kinds["D3D12_RESOURCE"]["buffer"]["export"]
    assert not kinds["HOST_ALLOCATION"]["buffer"]["export"]


@pytest.mark.parametrize("columns", [80, 100])
def test_its_tables_fit_the_window(vulkan_device: Device, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    result = shown(monkeypatch, columns=str(columns))
    assert result.exit_code == 0 and f"vulkan: {vulkan_device.name}" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "Images that were queried" in result.stdout and "COLOR_ATTACHMENT" in result.stdout


@SHARES_NOTHING
def test_in_40_columns_it_is_reported_line_by_line(vulkan_device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    result = shown(monkeypatch, columns="40")
    lines = result.stdout[result.stdout.index("vulkan: ") :].splitlines()
    assert "- handle type: OPAQUE_WIN32_KMT" in lines and "  compatible with: OPAQUE_FD" in lines
    assert f"    {vulkan_device.uuid.hex()}" in lines
    assert max(map(len, lines[lines.index("- memory type: 0") :])) <= 40


def failing(error: Exception) -> Offer:
    """A device that exists and cannot be opened."""
    (offer,) = host.offers()

    def refuse() -> NoReturn:
        raise error

    identity = msgspec.structs.replace(offer.identity, device_name="Broken GPU")
    return msgspec.structs.replace(offer, kind="vulkan", identity=identity, rank=10, open=refuse, answers=None)


@pytest.mark.parametrize(
    "error",
    [
        DriverError("vkCreateDevice returned VK_ERROR_INITIALIZATION_FAILED", result=-3, command="vkCreateDevice"),
        UnsupportedError("it has no queue that can copy"),
    ],
)
def test_one_that_cannot_be_opened_is_reported_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    (good,) = host.offers()
    monkeypatch.setattr(select, "enumerate_offers", lambda: [failing(error), good])
    result = shown(monkeypatch)
    assert result.exit_code == 0
    assert "vulkan: Broken GPU\n" in result.stdout and f"This device cannot be queried: {error}" in result.stdout
    assert result.stdout.index("Broken GPU") < result.stdout.index("host: ")
    assert "OPAQUE_WIN32" in result.stdout
    broken, fine = json.loads(shown(monkeypatch, "--json").stdout)
    assert broken["problem"] == str(error) and broken["memory_types"] == broken["handle_types"] == []
    assert fine["problem"] == "" and fine["handle_types"] and set(fine) == set(broken)


def test_what_has_to_be_opened_is_closed_again() -> None:
    (offer,) = host.offers()
    closed: list[str] = []

    class Backend(type(offer.open())):  # type: ignore[misc]  # the host device's class
        def close(self) -> None:
            closed.append("closed")

    facts = describe_offer(msgspec.structs.replace(offer, answers=None, open=Backend))
    assert closed == ["closed"] and facts == describe_offer(offer)


def test_without_a_gpu_the_reasons_are_one_line_each_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, why in ((vulkan, "there is no Vulkan loader here"), (cuda, "there is no driver library here")):
        monkeypatch.setattr(kind, "offers", list)
        monkeypatch.setattr(kind, "missing", lambda why=why: why)
    for arguments in ((), ("--json",)):
        result = shown(monkeypatch, *arguments)
        assert result.exit_code == 0
        assert result.stderr == (
            "No Vulkan device: there is no Vulkan loader here\nNo CUDA device: there is no driver library here\n"
        )
    assert [facts["kind"] for facts in json.loads(shown(monkeypatch, "--json").stdout)] == ["host"]


def test_one_physical_device_that_fails_does_not_hide_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    def offer(physical: str) -> str:
        if physical == "bad":
            raise DriverError("it is lost", result=-4, command="vkEnumerateDeviceExtensionProperties")
        return "an offer"

    monkeypatch.setattr(vulkan, "_missing", {})
    monkeypatch.setattr(vulkan, "_offer", offer)
    monkeypatch.setattr(vulkan, "shared_instance", lambda: SimpleNamespace(physical_devices=lambda: ["bad", "good"]))
    assert vulkan.offers() == ["an offer"] and vulkan.missing() == ""
    monkeypatch.setattr(vulkan, "shared_instance", lambda: SimpleNamespace(physical_devices=lambda: ["bad", "bad"]))
    assert vulkan.offers() == [] and vulkan.missing() == "it is lost; it is lost"
