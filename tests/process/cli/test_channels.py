"""`extmem channel --watch` as a program: on a terminal and in pipes, while writers and readers come and go."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import pytest

from extmem.testing.children import Peer, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

DEADLINE = 100
SLOW_READER = """
import threading, time
channel = extmem.open_channel('camera', every=True)
def read():
    for frame in channel:
        time.sleep(0.1)
threading.Thread(target=read, daemon=True).start()
"""
WRITER = """
import threading, time
channel = extmem.create_channel('camera', (4, 6), 'uint8')
def write():
    while True:
        channel.write().publish()
        time.sleep(0.005)
threading.Thread(target=write, daemon=True).start()
"""


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory."""
    with Runtime() as private:
        yield private


@pytest.fixture
def writer(house: Runtime) -> Iterator[Peer]:
    """A process that writes the channel `camera`, with a slow reader in another one."""
    with Peer(env=house.environment) as writing, Peer(env=house.environment) as reading:
        writing(WRITER)
        reading(SLOW_READER)
        yield writing


@contextmanager
def started(house: Runtime, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start the command, and end it however the test ends."""
    running = subprocess.Popen(
        [sys.executable, "-m", "extmem", "channel", "camera", "--watch", "--interval", "0.1", *arguments],
        env={**python_environment(house.environment), **options.pop("env", {})},
        stdin=subprocess.DEVNULL,
        stderr=options.pop("stderr", subprocess.PIPE),
        stdout=options.pop("stdout", subprocess.PIPE),
        text=True,
        **options,
    )
    with running:
        try:
            yield running
        except BaseException:
            running.kill()
            raise


def next_line(stream: IO[str] | None) -> str:
    assert stream is not None
    line = stream.readline()
    assert line, "the command has ended"
    return line.rstrip("\n")


@pytest.mark.linux_only("on Windows Ctrl-C comes from a console, and no test has one")
def test_in_a_pipe_there_is_a_line_for_each_look_until_ctrl_c(house: Runtime, writer: Peer) -> None:
    with started(house, start_new_session=True) as running:
        lines = [next_line(running.stdout) for _ in range(3)]
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=DEADLINE)
    assert all(re.match(r"\d\d:\d\d:\d\d  frame \d+  [\d.]+ per s  age ", line) for line in lines), lines
    assert "1 reader" in lines[-1] and ", slow" in lines[-1], lines
    assert running.returncode == 130 and said.splitlines() == ["interrupted"]


def test_it_ends_with_the_reader_of_its_pipe_or_with_the_channel(house: Runtime) -> None:
    """A killed writer alone does not end it. One test, since processes take long to start on Windows."""
    with Peer(env=house.environment) as writing, Peer(env=house.environment) as reading:
        writing(WRITER)
        reading("channel = extmem.open_channel('camera')")
        with started(house) as running:
            assert running.stdout is not None and running.stderr is not None
            next_line(running.stdout)
            running.stdout.close()
            said = running.stderr.read()
        assert running.returncode == 0 and said == ""
        with started(house, "--json") as running:
            assert json.loads(next_line(running.stdout))["state"] == "alive"
            writing.kill()
            wait_until(lambda: json.loads(next_line(running.stdout))["state"] == "gone", "the killed writer")
            last = json.loads(next_line(running.stdout))
            assert last["writer"] == writing.pid and [one["pid"] for one in last["readers"]] == [reading.pid]
            reading.kill()
            rest, said = running.communicate(timeout=DEADLINE)
        assert all(json.loads(line)["name"] == "camera" for line in rest.splitlines())
        assert running.returncode == 0
        assert "The channel camera has ended: no process has it open any more. Start its writer" in said


class Screen:
    """A pseudo-terminal, with what was drawn on it."""

    def __init__(self, columns: int, rows: int) -> None:
        import fcntl
        import pty
        import struct
        import termios

        self._master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.raw = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                self.raw += os.read(self._master, 1 << 16)
            except OSError:
                return

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-?]*[ -/]*[@-~]", "", self.raw.decode(errors="replace"))

    def close(self) -> None:
        os.close(self.slave)
        os.close(self._master)
        self._thread.join(DEADLINE)


@pytest.mark.linux_only("a terminal is a pty of Linux")
@pytest.mark.parametrize("columns", [100, 30])
def test_on_a_terminal_it_is_drawn_again_and_ctrl_c_restores_the_cursor(
    house: Runtime, writer: Peer, columns: int
) -> None:
    screen = Screen(columns, 24)
    environment = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": ""}
    try:
        with started(
            house, stdout=screen.slave, stderr=screen.slave, env=environment, start_new_session=True
        ) as running:
            wait_until(lambda: screen.text.count("(Ctrl-C") >= 3, lambda: f"three looks, not {screen.text[-900:]!r}")
            wait_until(lambda: "slowest" in screen.text, lambda: f"the slow reader, not {screen.text[-900:]!r}")
            running.send_signal(signal.SIGINT)
            assert running.wait(DEADLINE) == 130
        wait_until(lambda: "interrupted" in screen.text, "the message")
        longest = max(len(line.rstrip()) for line in re.split(r"[\r\n]+", screen.text))
    finally:
        screen.close()
    assert longest <= columns
    assert bytes(screen.raw).rfind(b"\x1b[?25h") > bytes(screen.raw).rfind(b"\x1b[?25l") >= 0
