"""What the Khronos validation layer reports in this process and in all that it starts.

How this works. Environment variables alone enable the layer: the loader reads `VK_INSTANCE_LAYERS`, the layer reads
`VK_LAYER_SETTINGS_PATH`. Its log is a named pipe. A regular file would be truncated by each process that opens it; a
pipe takes the messages of all of them, in order. A thread reads the pipe, so that no writer blocks. `take` writes a
marker into the pipe and waits until the thread has read it: whatever was reported before has been read by then.

Older layers write a message in one line, and its objects in indented lines. Newer ones write several lines: the head,
the text, explanations, `Objects: …`, indented objects, and an empty line.

A process may write markers of its own between the messages (`mark`), to show which of its steps a message belongs to.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from extmem.testing.waiting import wait_until

__all__ = ["LAYER", "PIPE", "Collector", "Message", "installed", "mark"]

LAYER = "VK_LAYER_KHRONOS_validation"
PIPE = "EXTMEM_TEST_LAYER_PIPE"
"""The environment variable with the path of the pipe."""
_MARK = "== "
_HEAD = re.compile(r"(?P<id>\S+?)\((?P<severity>[A-Z]+) / [A-Z]+\): msgNum: -?\d+ - (?P<text>.*)")
_NEWER_HEAD = re.compile(r"Validation [A-Za-z ]+: \[ (?P<id>\S+) \] \| MessageID = 0x[0-9a-f]+")
_PLACES = (
    "/usr/share/vulkan",
    "/usr/local/share/vulkan",
    "/etc/vulkan",
    "~/.local/share/vulkan",
)
_SETTINGS = """\
khronos_validation.debug_action = VK_DBG_LAYER_ACTION_LOG_MSG
khronos_validation.log_filename = {pipe}
khronos_validation.report_flags = error,warn
khronos_validation.enables = VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT,\
VALIDATION_CHECK_ENABLE_SYNCHRONIZATION_VALIDATION_QUEUE_SUBMIT
khronos_validation.validate_sync = true
khronos_validation.syncval_submit_time_validation = true
khronos_validation.enable_message_limit = false
khronos_validation.duplicate_message_limit = 0
"""
"""Old layers read synchronization validation from `enables`, a comma-separated list; newer ones read `validate_sync`
and ignore the list. Both ignore settings that they do not have, without a message.
"""


_SETTINGS_TOLD = "VALIDATION-SETTINGS"
"""The message of newer layers about the setting that only older ones need."""


class Message(NamedTuple):
    """One message of the layer."""

    id: str
    """A VUID, or an identifier of the layer such as `SYNC-HAZARD-WRITE-AFTER-WRITE`."""
    text: str

    def __str__(self) -> str:
        return f"{self.id}: {self.text}"


def installed() -> bool:
    """Return whether the loader finds the layer."""
    folders = [Path(place).expanduser() / "explicit_layer.d" for place in _PLACES]
    folders += [Path(folder) for folder in os.environ.get("VK_LAYER_PATH", "").split(os.pathsep) if folder]
    for folder in folders:
        with contextlib.suppress(OSError):
            if any(LAYER in file.read_text() for file in folder.glob("*.json")):
                return True
    return False


def mark(word: str) -> None:
    """Write a marker between the messages of this process. `Collector.read` returns it as a string."""
    pipe = os.open(os.environ[PIPE], os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(pipe, f"{_MARK}{word}\n".encode())
    finally:
        os.close(pipe)


class Collector:
    """Collects the layer's messages of the processes that have `environment`, within the block."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="extmem-layer-"))
        self._folder.chmod(0o755)  # tests start processes of other users
        pipe, settings = self._folder / "pipe", self._folder / "vk_layer_settings.txt"
        os.mkfifo(pipe)
        pipe.chmod(0o666)
        settings.write_text(_SETTINGS.format(pipe=pipe))
        self.environment = {
            "VK_INSTANCE_LAYERS": LAYER,
            "VK_LAYER_SETTINGS_PATH": str(settings),
            PIPE: str(pipe),
        }
        """The environment variables that enable the layer."""
        # The pipe is open for writing too, so that opening does not wait for a writer, nor reading end with the last
        # one.
        self._pipe = os.open(pipe, os.O_RDWR | os.O_CLOEXEC)
        self._found: list[Message | str] = []
        self._taken = 0
        self._rest = b""
        self._newer = ""
        """The identifier of a newer layer's message whose text is in the next line."""
        self._of_newer = False
        """Whether lines of such a message follow, up to its objects."""
        self._thread = threading.Thread(target=self._read, name="layer", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            chunk = os.read(self._pipe, 1 << 16)
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                if text == f"{_MARK}end":
                    return
                self._understand(text)

    def _understand(self, line: str) -> None:
        head, newer = _HEAD.match(line), _NEWER_HEAD.match(line)
        if line.startswith(_MARK):
            self._found.append(line.removeprefix(_MARK))
        elif head is not None:
            self._found.append(Message(head["id"], head["text"]))
        elif newer is not None:
            self._newer, self._of_newer = newer["id"], True
        elif self._newer:
            if self._newer != _SETTINGS_TOLD:
                self._found.append(Message(self._newer, line))
            self._newer = ""
        elif self._of_newer:
            self._of_newer = not line.startswith("Objects:")
        elif line.strip() and not line.startswith("    "):  # the objects of a message are indented
            self._found.append(Message("not understood", line))

    def _put(self, word: str) -> None:
        os.write(self._pipe, f"{_MARK}{word}\n".encode())

    def read(self) -> list[Message | str]:
        """Return what has come since the last call, in order: messages, and the strings of markers."""
        self._taken += 1
        word = f"taken {self._taken}"
        self._put(word)
        wait_until(lambda: word in self._found, "the reader of the layer's pipe", deadline=60)
        end = self._found.index(word)
        found, self._found[: end + 1] = self._found[:end], []
        return found

    def take(self) -> list[Message]:
        """Return the messages since the last call."""
        return [entry for entry in self.read() if isinstance(entry, Message)]

    def close(self) -> None:
        """End the thread and remove the pipe. Safe to call twice."""
        if self._thread.is_alive():
            self._put("end")
            self._thread.join(60)
            os.close(self._pipe)
            shutil.rmtree(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
