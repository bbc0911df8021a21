"""Which devices exist, their identities, and choosing one."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path

import msgspec
import pytest

from extmem.devices import select, vulkan
from extmem.devices.host import physical
from extmem.errors import UnsupportedError
from extmem.testing import fake_vulkan


def test_there_is_a_host_device() -> None:
    (offer,) = [offer for offer in select.enumerate_offers() if offer.kind == "host"]
    backend = offer.open()
    assert backend.kind == "host" and backend.identity == offer.identity
    who = backend.identity
    assert (len(who.device_uuid), len(who.driver_uuid), who.luid) == (16, 16, None)
    assert who.driver_version and "host memory" in who.device_name
    backend.close()


def test_it_is_chosen_by_kind_uuid_and_name() -> None:
    who = physical.host_identity()
    as_text = str(uuid.UUID(bytes=who.device_uuid))
    for chosen in (
        select.choose(),
        select.choose(kind="host"),
        select.choose(uuid=who.device_uuid),
        select.choose(uuid=as_text),
        select.choose(name="HOST mem"),
        select.choose(kind="host", uuid=as_text, name="extmem"),
    ):
        assert chosen.identity == who
        chosen.close()


def test_a_gpu_is_chosen_by_luid_and_a_payload_judged_by_it_where_it_has_no_uuid() -> None:
    with fake_vulkan.installed(fake_vulkan.FakeVulkan([fake_vulkan.DISCRETE])):
        chosen = select.choose(luid=b"fakeluid")
        who = chosen.identity
        assert who.device_name == fake_vulkan.DISCRETE.name
        chosen.close()
    assert who.may_be(None, b"fakeluid") and who.may_be(None) and who.may_be(who.device_uuid, b"another!")
    assert not who.may_be(None, b"another!") and not who.may_be(bytes(16), b"fakeluid"), "linked GPUs share a LUID"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"kind": "cuda"}, "kind 'cuda'"),
        ({"uuid": bytes(16)}, f"UUID {bytes(16).hex()}"),
        ({"luid": b"no luid!"}, f"LUID {b'no luid!'.hex()}"),
        ({"name": "GeForce", "kind": "host"}, "kind 'host' and a name with 'GeForce'"),
    ],
)
def test_what_is_not_here_is_answered_with_what_is(asked: dict[str, str], words: str) -> None:
    with pytest.raises(UnsupportedError) as caught:
        select.choose(**asked)  # type: ignore[arg-type]  # one of three keywords
    assert words in str(caught.value)
    assert physical.host_identity().device_uuid.hex() in str(caught.value)
    assert caught.value.requires_one_of == tuple(select.describe(offer) for offer in select.enumerate_offers())


def test_no_device_at_all_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(select, "enumerate_offers", list)
    monkeypatch.setattr(select.host, "offers", list)
    with pytest.raises(UnsupportedError, match="none at all"):
        select.choose()


def test_the_environment_says_what_a_program_gets_that_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    who = physical.host_identity()
    for text in ("host", str(uuid.UUID(bytes=who.device_uuid)), "extmem host"):
        monkeypatch.setenv(select.VARIABLE, text)
        assert select.choose().identity == who, text
    monkeypatch.setenv(select.VARIABLE, "no such device")
    with pytest.raises(UnsupportedError, match="EXTMEM_DEVICE=no such device"):
        select.choose()
    assert select.choose(kind="host").identity == who, "an argument takes precedence over the environment"


def test_devices_come_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    (host,) = select.host.offers()
    gpu, software = (msgspec.structs.replace(host, kind="vulkan", rank=rank) for rank in (10, 90))
    monkeypatch.setattr(vulkan, "offers", lambda: [software, gpu])
    assert select.enumerate_offers() == [gpu, host, software]


def test_text_that_is_no_uuid_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="badly formed"):
        select.choose(uuid="zz")


def test_B95_every_process_of_this_boot_sees_the_same_device() -> None:
    code = "from extmem.devices.host.physical import *; print(device_uuid().hex(), driver_uuid().hex())"
    child = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env={"PYTHONPATH": "src"}
    )
    who = physical.host_identity()
    assert child.stdout.split() == [who.device_uuid.hex(), who.driver_uuid.hex()]


def machine(root: Path, boot: str | None = None, machine_id: str | None = None, started: str | None = None) -> Path:
    for name, text in (
        ("proc/sys/kernel/random/boot_id", boot),
        ("etc/machine-id", machine_id),
        ("proc/stat", f"cpu 1 2 3\nbtime {started}\n" if started else None),
    ):
        if text is not None:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
    return root


@pytest.mark.linux_only("what identifies a boot is read from /proc")
def test_another_boot_is_another_device_and_another_container_is_not(tmp_path: Path) -> None:
    first = physical.device_uuid(machine(tmp_path / "a", boot="one", machine_id="m"))
    assert physical.device_uuid(machine(tmp_path / "b", boot="one", machine_id="of a container")) == first
    assert physical.device_uuid(machine(tmp_path / "c", boot="two", machine_id="m")) != first


@pytest.mark.linux_only("what identifies a boot is read from /proc")
def test_without_a_boot_id_machine_and_boot_time_stand_in(tmp_path: Path) -> None:
    first = physical.device_uuid(machine(tmp_path / "a", machine_id="m", started="100"))
    assert physical.device_uuid(machine(tmp_path / "b", machine_id="m", started="100")) == first
    assert physical.device_uuid(machine(tmp_path / "c", machine_id="m", started="200")) != first
    assert physical.device_uuid(machine(tmp_path / "d", machine_id="n", started="100")) != first


@pytest.mark.linux_only("what identifies a boot is read from /proc")
def test_without_either_no_two_processes_are_taken_for_one_device(tmp_path: Path) -> None:
    assert physical.device_uuid(tmp_path) != physical.device_uuid(tmp_path)


@pytest.mark.linux_only("the boot's id is read from /proc")
def test_no_id_of_the_machine_is_given_away() -> None:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert physical.host_identity().device_uuid.hex() not in boot
    assert not any(part in repr(physical.host_identity()) for part in (boot, boot[:8]))
