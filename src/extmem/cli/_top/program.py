"""A process that runs `extmem top` for a page of a browser, and the bytes between the two.

How this works. Textual's driver for the web writes a line that says that it has begun, and then packets: a letter, four
bytes with the length, and the data. `D` is what a terminal would draw, `M` a JSON object (`{"type": "exit"}` is the
last one). It reads the same: `D` is what a terminal would send, `M` is a new size, the focus, or the request to end.

The process is owned: `end` returns when it has ended and its pipes are closed, whatever it does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from typing import Final

__all__ = ["ENDS", "Program"]

ENDS: Final = 5.0
"""Seconds after which a process that was asked to end is killed."""
_BEGUN: Final = b"__GANGLION__\n"
_LINES: Final = 10
"""Lines before that one which are not the driver's, at most."""
_LONGEST: Final = 1 << 24
"""Bytes of a packet, at most."""
_DATA, _META = b"D", b"M"


class Program:
    """The process. `start` makes it; use it in one event loop."""

    def __init__(
        self, process: asyncio.subprocess.Process, writing: asyncio.StreamWriter, reading: asyncio.StreamReader
    ) -> None:
        self._process, self._writing, self._reading = process, writing, reading

    @classmethod
    async def start(cls, command: Sequence[str], width: int, height: int) -> Program:
        """Start a command, whose window has so many columns and rows. Errors: OSError."""
        environment = {
            **os.environ,
            "TEXTUAL_COLOR_SYSTEM": "truecolor",
            "COLUMNS": str(width),
            "ROWS": str(height),
        }
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=environment)
        if process.stdin is None or process.stdout is None:
            raise OSError("a process was started without its pipes")
        return cls(process, process.stdin, process.stdout)

    async def typed(self, data: bytes) -> None:
        """Send what a terminal would send. Nothing happens if the process has ended."""
        await self._send(_DATA, data)

    async def tell(self, message: dict[str, object]) -> None:
        """Send a message of the driver: `{"type": "resize", "width": …, "height": …}`, `focus`, `blur`, `quit`."""
        await self._send(_META, json.dumps(message).encode())

    async def _send(self, kind: bytes, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            self._writing.write(kind + len(data).to_bytes(4, "big") + data)
            await self._writing.drain()

    async def drawn(self) -> AsyncIterator[bytes]:
        """Yield what a terminal would draw, until the process says that it ends, or ends."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            if not await self._begins():
                return
            while True:
                head = await self._reading.readexactly(5)
                size = int.from_bytes(head[1:], "big")
                if size > _LONGEST:
                    return
                data = await self._reading.readexactly(size)
                if head[:1] == _DATA:
                    yield data
                elif head[:1] == _META and json.loads(data).get("type") == "exit":
                    return

    async def _begins(self) -> bool:
        for _ in range(_LINES):
            line = await self._reading.readline()
            if line == _BEGUN:
                return True
            if not line:
                break
        return False

    async def end(self) -> None:
        """Ask the process to end, and wait until it has ended; kill it after `ENDS` seconds."""
        await self.tell({"type": "quit"})
        self._writing.close()
        try:
            async with asyncio.timeout(ENDS):
                while await self._reading.read(1 << 16):
                    pass  # what it still draws must not fill the pipe, and so keep it from ending
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        with contextlib.suppress(ConnectionError):
            await self._writing.wait_closed()
