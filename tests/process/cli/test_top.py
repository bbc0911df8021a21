"""`extmem top` as a program: on a terminal, in a browser's place, without either, and while brokers come and go."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from extmem.testing.children import Child, Peer, python_environment
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import wait_until

pytest.importorskip("textual", reason="Textual is not installed")

TERMINAL = pytest.mark.linux_only("a terminal is a pty of Linux")
SERVER = pytest.mark.linux_only("the Windows test bed has no aiohttp, and a console sends Ctrl-C there")
DEADLINE = 100


@pytest.fixture
def house() -> Iterator[Runtime]:
    """A private runtime directory."""
    with Runtime() as private:
        yield private


def environment(house: Runtime, **more: str) -> dict[str, str]:
    found = python_environment({**house.environment, "TERM": "xterm-256color", "LANG": "C.UTF-8"})
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        found.pop(name, None)
    return {**found, **more}


def extmem(house: Runtime, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "extmem", "top", *arguments],
        env=environment(house, **more),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
    )


# without a terminal


def test_without_a_terminal_the_error_says_what_to_use(house: Runtime) -> None:
    done = extmem(house)
    assert done.returncode == 1 and done.stdout == ""
    assert "error: UnsupportedError: extmem top draws on a terminal" in done.stderr
    assert "--web" in done.stderr and "extmem ps" in done.stderr
    assert not house.processes()


@pytest.mark.parametrize(
    ("module", "package"), [("textual", "Textual"), pytest.param("aiohttp", "aiohttp", marks=SERVER)]
)
def test_without_its_packages_the_error_says_what_to_install(
    house: Runtime, tmp_path: Path, module: str, package: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys; sys.modules[{module!r}] = None\n")
    paths = os.pathsep.join([str(tmp_path), python_environment()["PYTHONPATH"]])
    done = extmem(house, "--web", PYTHONPATH=paths)
    assert done.returncode == 1 and f"{package}, which extmem top" in done.stderr
    assert "pip install 'extmem[top]'" in done.stderr
    assert extmem(house, "--json", PYTHONPATH=paths).returncode == 0  # needs nothing of it


def test_json_is_one_look(house: Runtime) -> None:
    assert json.loads(extmem(house, "--json").stdout)["payloads"] == []
    with Peer(env=house.environment) as peer:
        peer("d = extmem.open_device(kind='host'); m = d.allocate((2, 3), 'float32', name='frames')")
        peer("with m.update(): pass")
        peer("t = d.timeline(name='clock'); t.signal(5); None")
        found = json.loads(extmem(house, "--json").stdout)
        (memory,), (clock,) = found["payloads"], found["timelines"]
        assert memory["names"] == ["frames"] and clock["kind"] == {"type": "timeline", "value": 5}
        if sys.platform == "linux":
            assert memory["generation"] == 2 and found["broker"]["pid"] == house.broker_pid()
        peer("t.close(); m.close(); d.close()")


def test_a_port_without_web_is_a_wrong_argument(house: Runtime) -> None:
    done = extmem(house, "--port", "8000")
    assert done.returncode == 2 and "--web" in done.stderr


# on a terminal


class Terminal:
    """A command on a pseudo-terminal of its own, whose window can change."""

    def __init__(self, house: Runtime, *arguments: str, columns: int = 100, rows: int = 30, **more: str) -> None:
        import pty
        import threading

        self._master, slave = pty.openpty()
        self.slave = slave
        self.resize(columns, rows)
        self.before = self.modes()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "extmem", "top", "--interval", "0.1", *arguments],
            env=environment(house, **more),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=_with_terminal,
        )
        self._written = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:
                return
            if not data:
                return
            self._written += data

    @property
    def text(self) -> str:
        """All that was drawn, without the control sequences."""
        text = self._written.decode(errors="replace")
        return re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|[()].|[=>78])", "", text)

    @property
    def raw(self) -> bytes:
        return bytes(self._written)

    def modes(self) -> list[Any]:
        import termios

        return termios.tcgetattr(self.slave)

    def resize(self, columns: int, rows: int) -> None:
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def shows(self, text: str) -> None:
        wait_until(lambda: text in self.text, lambda: f"{text!r} on the terminal, which has {self.text[-3000:]!r}")

    def forget(self) -> None:
        """Look only at what is drawn from now on."""
        self._written.clear()

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def ends(self) -> int:
        """Wait until the command has ended, and return its exit code."""
        return self.process.wait(timeout=DEADLINE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.slave)
        os.close(self._master)
        self._reader.join(DEADLINE)


def _with_terminal() -> None:
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def terminal(house: Runtime) -> Iterator[Terminal]:
    made = Terminal(house)
    yield made
    made.close()


def restored(terminal: Terminal) -> bool:
    """Return whether the terminal is as it was: its modes, the usual screen, the cursor, no mouse."""
    wait_until(lambda: b"\x1b[?1049l" in terminal.raw, "the usual screen")
    return terminal.modes() == terminal.before and b"\x1b[?25h" in terminal.raw and b"\x1b[?1000l" in terminal.raw


@TERMINAL
def test_the_view_is_live_and_q_restores_the_terminal(house: Runtime, terminal: Terminal) -> None:
    terminal.shows("No broker runs here")
    assert b"\x1b[?1049h" in terminal.raw and not house.processes().keys() - {terminal.process.pid}
    with Peer(env=house.environment) as peer:
        peer("d = extmem.open_device(kind='host'); m = d.allocate((2, 3), 'float32', name='frames'); None")
        terminal.shows("frames")
        terminal.shows("array 2 x 3 float32")
        peer("t = d.timeline(name='clock'); t.signal(41); None")
        terminal.press(b"2")
        terminal.shows("clock")
        peer("m.close(); t.close(); d.close()")
    terminal.press(b"q")
    assert terminal.ends() == 0 and restored(terminal)


@TERMINAL
def test_ctrl_c_ends_it_as_it_ends_every_command(house: Runtime, terminal: Terminal) -> None:
    terminal.shows("No broker runs here")
    terminal.press(b"\x03")
    assert terminal.ends() == 130 and restored(terminal)
    terminal.shows("interrupted")


@TERMINAL
@pytest.mark.parametrize("number", [signal.SIGTERM, "SIGHUP"])
def test_signals_that_end_it_restore_the_terminal(house: Runtime, terminal: Terminal, number: Any) -> None:
    number = getattr(signal, number) if isinstance(number, str) else number
    terminal.shows("No broker runs here")
    terminal.process.send_signal(number)
    assert terminal.ends() == 128 + number and restored(terminal)


@TERMINAL
def test_a_window_that_changes_is_drawn_anew(house: Runtime, terminal: Terminal) -> None:
    terminal.shows("No broker runs here")
    terminal.resize(30, 8)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.forget()
    terminal.resize(160, 40)
    terminal.process.send_signal(signal.SIGWINCH)
    terminal.shows("generation")
    terminal.press(b"q")
    assert terminal.ends() == 0


@TERMINAL
def test_a_killed_broker_and_the_next_one_are_shown(house: Runtime, terminal: Terminal) -> None:
    with Peer(env=house.environment) as peer:
        peer("m = extmem.open_device(kind='host').allocate((2, 3), 'float32', name='frames'); None")
        terminal.shows("frames")
        first = house.kill_broker()
        terminal.shows(f"The broker {first} has ended")
        terminal.forget()
        peer("extmem.open('frames').close()")
        wait_until(lambda: house.broker_pid() not in (None, first), "the next broker")
        terminal.resize(140, 40)
        terminal.process.send_signal(signal.SIGWINCH)
        terminal.shows(f"broker {house.broker_pid()}")
        terminal.shows("frames")
        terminal.press(b"q")
        assert terminal.ends() == 0
        peer("m.close()")


@TERMINAL
def test_a_stopped_broker_delays_neither_keys_nor_the_end(house: Runtime, terminal: Terminal) -> None:
    with Peer(env=house.environment) as peer:
        peer("m = extmem.open_device(kind='host').allocate((2, 3), 'float32', name='frames'); None")
        terminal.shows("frames")
        broker = house.broker_pid()
        assert broker is not None
        os.kill(broker, signal.SIGSTOP)
        try:
            terminal.shows("No answer for 2")
            terminal.press(b"q")
            assert terminal.ends() == 0 and restored(terminal)
        finally:
            os.kill(broker, signal.SIGCONT)
        peer("m.close()")


@TERMINAL
def test_a_watched_broker_without_clients_is_not_held(house: Runtime, terminal: Terminal) -> None:
    """`extmem broker stop` refuses while processes use the broker: a view of nothing is none of them."""
    with Peer(env=house.environment) as peer:
        peer("m = extmem.open_device(kind='host').allocate(64, name='frames'); None")
        terminal.shows("frames")
        peer("m.close()")
    terminal.shows("No payloads are shared now.")
    command = [sys.executable, "-m", "extmem", "broker", "stop"]
    wait_until(
        lambda: subprocess.run(command, env=environment(house), capture_output=True).returncode == 0, "the broker's end"
    )
    terminal.press(b"q")
    assert terminal.ends() == 0


@TERMINAL
@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"NO_COLOR": "1"}, {"TERM": "vt100", "LANG": "C"}], ids=str)
def test_terminals_without_colours_show_the_same(house: Runtime, more: dict[str, str]) -> None:
    with Peer(env=house.environment) as peer:
        peer("m = extmem.open_device(kind='host').allocate(64, name='frames'); None")
        terminal = Terminal(house, **more)
        try:
            terminal.shows(">1 Payloads (1)<")
            terminal.shows("frames")
            terminal.press(b"q")
            assert terminal.ends() == 0
        finally:
            terminal.close()
        peer("m.close()")


# in a browser


def page_ends(house: Runtime) -> bool:
    return not any("--served" in command for command in house.processes().values())


@SERVER
@pytest.mark.parametrize("killed", [False, True])
def test_web_prints_an_address_behind_which_the_view_is_and_leaves_nothing(house: Runtime, killed: bool) -> None:
    import aiohttp

    with Peer(env=house.environment) as peer:
        peer("m = extmem.open_device(kind='host').allocate(64, name='frames'); None")
        command = [sys.executable, "-m", "extmem", "top", "--web", "--interval", "0.1"]
        server = subprocess.Popen(command, env=environment(house), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert server.stdout is not None
        url = server.stdout.readline().decode().strip()
        secret = url.split("/")[3]

        async def look() -> None:
            async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as client:
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await client.ws_connect(url.replace(secret, "x" * len(secret)) + "ws")
                assert page_ends(house)
                async with client.ws_connect(f"{url}ws?width=100&height=30") as page:
                    drawn = b""
                    while b"frames" not in drawn:
                        drawn += (await page.receive()).data
                    assert not any(secret in command for command in house.processes().values())
                    if killed:
                        server.kill()
                        return
                    await page.send_json(["stdin", "q"])
                    while (await page.receive()).type is aiohttp.WSMsgType.BINARY:
                        pass

        try:
            asyncio.run(look())
            wait_until(lambda: page_ends(house), "the page's process to end")
            if not killed:
                server.send_signal(signal.SIGINT)
            assert server.wait(timeout=DEADLINE) == (-9 if killed else 130)
            output = server.communicate()
            assert output[0] == b"" and secret.encode() not in output[1]
            assert killed or b"interrupted" in output[1]
        finally:
            server.kill()
            server.communicate()
        peer("m.close()")


@SERVER
def test_ctrl_c_ends_the_server_with_its_open_pages(house: Runtime) -> None:
    import aiohttp

    child = Child([sys.executable, "-m", "extmem", "top", "--web"], env=environment(house))
    try:
        url = wait_until(lambda: re.search(r"http://\S+/", child.output), "the address")[0]

        async def look() -> None:
            async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as client:
                async with client.ws_connect(f"{url}ws") as page:
                    await page.receive()
                    child.process.send_signal(signal.SIGINT)
                    while (await page.receive()).type is aiohttp.WSMsgType.BINARY:
                        pass

        asyncio.run(look())
        child.wait(expect=130, deadline=DEADLINE)
        assert page_ends(house)
    finally:
        child.kill()
