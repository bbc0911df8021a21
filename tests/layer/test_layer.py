"""The checker of the validation layer finds misuses: in this process, in another one, and after many others."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from extmem.testing.children import Child
from tests.layer import collector
from tests.layer.collector import Collector, Message
from tests.layer.expected import EXPECTED, Expected, missing, unexpected
from tests.meta.tools import ROOT, run

NOTHING = "VUID-VkBufferCreateInfo-size-00912"
"""Create a buffer of no bytes."""
MISUSE = """
import sys, extmem
from extmem import vk
with extmem.open_device(kind="vulkan") as device:
    for size in map(int, sys.argv[1:]):
        device.backend.create_buffer(vk.BufferCreateInfo(size=size, usage=3)).destroy()
"""
"""Source that calls the driver without the checks of the library."""
HAZARD = """
import sys, extmem
from extmem import vk
from extmem.devices.vulkan.commands import VulkanRecorder
what, how = sys.argv[1:]
if how == "without order":
    VulkanRecorder._in_order = lambda self: None
    VulkanRecorder.pipeline_barrier = VulkanRecorder.barrier
LAYOUT, STAGE, USAGE = vk.ImageLayout, vk.PipelineStageFlagBits, vk.ImageUsageFlagBits
NOBODY = int(vk.QUEUE_FAMILY_IGNORED)
def fills(commands):
    commands.fill_buffer(buffer, 1)
    commands.fill_buffer(buffer, 2)
def layouts(commands):
    whole = vk.ImageSubresourceRange(vk.ImageAspectFlagBits.COLOR, 0, 1, 0, 1)
    def change(old, new):
        barrier = vk.ImageMemoryBarrier(0, 0, old, new, NOBODY, NOBODY, image, whole)
        commands.pipeline_barrier(STAGE.TOP_OF_PIPE, STAGE.BOTTOM_OF_PIPE, image_memory_barriers=[barrier])
    change(LAYOUT.UNDEFINED, LAYOUT.GENERAL)
    commands.clear_color_image(image, (0, 0, 0, 0))
    change(LAYOUT.GENERAL, LAYOUT.TRANSFER_DST_OPTIMAL)
    commands.copy_buffer_to_image(buffer, image, layout=LAYOUT.TRANSFER_DST_OPTIMAL)
    commands.acquire(image, old_layout=LAYOUT.TRANSFER_DST_OPTIMAL, new_layout=LAYOUT.GENERAL)
    commands.release(image)
    commands.acquire(image)
    commands.copy_image_to_buffer(image, buffer)
with extmem.open_device(kind="vulkan") as device, device.allocate_memory(vk.MemoryAllocateInfo(65536, 0)) as memory:
    with (
        device.create_buffer(vk.BufferCreateInfo(size=4096, usage=3)) as buffer,
        device.create_image(
            vk.ImageCreateInfo(
                image_type=vk.ImageType.TYPE_2D,
                format=vk.Format.R8G8B8A8_UNORM,
                extent=vk.Extent3D(16, 16, 1),
                usage=USAGE.TRANSFER_SRC | USAGE.TRANSFER_DST,
            )
        ) as image,
    ):
        device.bind_buffer_memory(buffer, memory)
        device.bind_image_memory(image, memory, 32768)
        with device.commands() as commands:
            {"fills": fills, "layouts": layouts}[what](commands)
"""
"""Source of commands that write to the same bytes; the barrier that orders them is optional."""


@pytest.fixture(autouse=True)
def layer(vulkan_device: object) -> None:
    """Skip where the layer is not installed, or no driver is."""
    if not collector.installed():
        pytest.skip("no Khronos validation layer here")


@pytest.fixture
def collected() -> Iterator[Collector]:
    with Collector() as made:
        yield made


def of_child(collected: Collector, *sizes: int) -> list[str]:
    """Return the identifiers of the messages of a process that creates buffers of these sizes."""
    with Child.python(MISUSE, *map(str, sizes), env=collected.environment) as child:
        child.wait()
    return [message.id for message in collected.take()]


def test_a_misuse_of_another_process_is_found(collected: Collector) -> None:
    assert of_child(collected, 0) == [NOTHING]


def test_what_is_right_is_not_found(collected: Collector) -> None:
    assert of_child(collected, 64) == []


def test_each_of_many_is_found(collected: Collector) -> None:
    """By default the layer stops after ten messages with the same identifier."""
    assert of_child(collected, *[0] * 25) == [NOTHING] * 25


@pytest.mark.parametrize("what", ["fills", "layouts"])
def test_commands_without_order_are_found(collected: Collector, what: str) -> None:
    """Synchronization validation is enabled. Only the settings enable it, and the layer ignores settings that it cannot
    read.
    """
    with Child.python(HAZARD, what, "without order", env=collected.environment) as child:
        child.wait()
    ids = {message.id for message in collected.take()}
    assert "SYNC-HAZARD-WRITE-AFTER-WRITE" in ids and all(id.startswith("SYNC-HAZARD") for id in ids), ids


@pytest.mark.parametrize("what", ["fills", "layouts"])
def test_commands_of_a_block_are_in_order(collected: Collector, what: str) -> None:
    """Transfers, changes of layout and transfers of ownership are valid, whatever stages and accesses the program
    names.
    """
    with Child.python(HAZARD, what, "in order", env=collected.environment) as child:
        child.wait()
    assert collected.take() == []


def test_two_processes_at_once_lose_nothing(collected: Collector) -> None:
    """A log file would be truncated by the second process."""
    with (
        Child.python(MISUSE, *["0"] * 5, env=collected.environment) as first,
        Child.python(MISUSE, *["0"] * 7, env=collected.environment) as second,
    ):
        first.wait()
        second.wait()
    assert [message.id for message in collected.take()] == [NOTHING] * 12


def test_marks_stand_between_messages(collected: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    with Child.python(MISUSE, "0", env=collected.environment) as child:
        child.wait()
    monkeypatch.setenv(collector.PIPE, collected.environment[collector.PIPE])
    collector.mark("here")
    found = collected.read()
    assert isinstance(found[0], Message) and found[0].id == NOTHING
    assert found[1:] == ["here"]


def test_what_is_not_understood_is_a_message(collected: Collector) -> None:
    Path(collected.environment[collector.PIPE]).write_text("something else\n    indented\n", encoding="utf-8")
    assert collected.take() == [Message("not understood", "something else")]


def test_messages_of_a_newer_layer_are_understood(collected: Collector) -> None:
    """Each message has several lines, and ends with an empty one."""
    head = "Validation Error: [ {} ] | MessageID = 0x5e299387\n"
    more = "The Vulkan spec states: more\nObjects: 1\n    [0] VkDevice 0x1\n\n"
    texts = f"{head.format('VUID-1')}first text\n{more}{head.format('VUID-2')}second text\n{more}stray\n"
    texts += "Validation Performance Warning: [ VUID-3 ] | MessageID = 0x1\nthird\n\n"
    Path(collected.environment[collector.PIPE]).write_text(texts, encoding="utf-8")
    found = [("VUID-1", "first text"), ("VUID-2", "second text"), ("not understood", "stray"), ("VUID-3", "third")]
    assert collected.take() == [Message(*one) for one in found]


# The plugin.

PLANTED = {
    "conftest.py": "from tests.conftest import *\n",
    "test_planted.py": f"""
import subprocess, sys
import extmem
from extmem import vk
CODE = {MISUSE!r}
def test_here(vulkan_device):
    vulkan_device.backend.create_buffer(vk.BufferCreateInfo(size=0, usage=3)).destroy()
def test_there(vulkan_device):
    subprocess.run([sys.executable, "-c", CODE, "0"], check=True)
def test_right(vulkan_device):
    vulkan_device.backend.create_buffer(vk.BufferCreateInfo(size=4, usage=3)).destroy()
    subprocess.run([sys.executable, "-c", CODE, "4"], check=True)
""",
}


@pytest.mark.slow("runs pytest under the layer")
def test_a_misuse_fails_its_test_and_no_other(tmp_path: Path) -> None:
    for name, text in PLANTED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "--layer",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        tmp_path,
        tmp_path,
    ]
    done = run(command, cwd=tmp_path, python_path=f"{ROOT}{os.pathsep}{ROOT / 'src'}", timeout=110)
    failed = {line.split("::")[1].split(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == {"test_here", "test_there"}, done.stdout
    assert "1 passed" in done.stdout and NOTHING in done.stdout


def test_without_the_layer_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nothing").mkdir()
    monkeypatch.setattr(collector, "_PLACES", (str(tmp_path / "nothing"),))
    monkeypatch.delenv("VK_LAYER_PATH", raising=False)
    assert not collector.installed()
    shutil.copytree("/usr/share/vulkan/explicit_layer.d", tmp_path / "nothing" / "explicit_layer.d")
    assert collector.installed()


# The list.

LISTED = (
    Expected("folder/test_file.py::test_one", frozenset({"VUID-1", "VUID-2"}), "planted"),
    Expected("folder/test_file.py::test_other", frozenset({"VUID-3"}), "planted", partial=True),
)
ONE, OTHER = "tests/folder/test_file.py::test_one[case]", "tests/folder/test_file.py::test_other"


def test_what_is_listed_is_expected_of_that_test_alone() -> None:
    assert unexpected(ONE, ["VUID-1", "VUID-2", "VUID-1"], LISTED) == []
    assert unexpected(ONE, ["VUID-3"], LISTED) == ["VUID-3 is not expected"]
    assert unexpected("tests/folder/test_more.py::test_one", ["VUID-1"], LISTED) == ["VUID-1 is not expected"]


def test_what_is_listed_must_come() -> None:
    assert missing(ONE, ["VUID-2", "VUID-1"], LISTED) == []
    assert [text.split(" ")[0] for text in missing(ONE, ["VUID-2"], LISTED)] == ["VUID-1"]
    assert missing(OTHER, [], LISTED) == []


def test_each_entry_has_a_reason_and_a_test_that_exists() -> None:
    for entry in EXPECTED:
        file, _, name = entry.test.partition("::")
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {name.partition('[')[0]}" in text, entry
        assert entry.ids and len(entry.reason) > 10, entry
