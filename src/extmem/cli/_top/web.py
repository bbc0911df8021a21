"""`extmem top --web`: the program in a browser on this machine, for whoever has the address, and nobody else.

How this works. Each page that a browser opens has a websocket, and each websocket a process of its own (`program`),
which runs the same program with Textual's driver for the web. textual-serve's script draws in the browser what it
writes. textual-serve has a server, too, which is not used: it serves without a secret, and does not wait for processes.

Every user of the machine can connect to 127.0.0.1, and a page of any site can make a browser do so. So the first part
of each path is a random secret, which every request must have: for the page, for its parts and for the websocket.
Without it nothing is sent but a refusal. Another Host is refused, so that no other site's name can lead here, and a
websocket from a page of another origin. The secret is printed on stdout, and is on no command line, where other users
could read it; this is why no browser is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import importlib.resources
import json
import secrets
import socket
import sys
from collections.abc import Sequence
from typing import Final

import click
from aiohttp import WSCloseCode, WSMsgType, web

from extmem.cli._out import emit_line, words
from extmem.cli._top.page import HTML, SCRIPT, STYLE, security_headers
from extmem.cli._top.program import ENDS, Program

__all__ = ["ADDRESS", "MOST_PAGES", "TopServer", "serve"]

ADDRESS: Final = "127.0.0.1"
MOST_PAGES: Final = 8
"""Pages at the same time, each of which is a process."""
_SECRET_BYTES: Final = 32
_WIDEST: Final = 1_000
"""Columns and rows that a page may ask for, at most."""
_LONGEST: Final = 1 << 16
"""Bytes of a message of a page, at most."""
_FILES: Final = {
    "css/xterm.css": "text/css",
    "js/textual.js": "text/javascript",
    "fonts/RobotoMono-VariableFont_wght.ttf": "font/ttf",
    "fonts/RobotoMono-Italic-VariableFont_wght.ttf": "font/ttf",
}


class TopServer:
    """The server. Use it in one event loop; `close` ends all that it has started."""

    def __init__(self, command: Sequence[str], port: int = 0) -> None:
        """command: what each page runs. port: 0 for any free one. Errors: OSError if it cannot be had."""
        self._command = tuple(command)
        self._secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._socket = _listening(port)
        self._host = f"{ADDRESS}:{self._socket.getsockname()[1]}"
        self._headers = security_headers(self._host)
        self._pages: set[web.WebSocketResponse] = set()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The address of the page, with the secret."""
        return f"http://{self._host}/{self._secret}/"

    async def start(self) -> None:
        """Begin to serve."""
        application = web.Application(client_max_size=_LONGEST)
        application.router.add_route("*", "/{path:.*}", self._answer)
        # No log: it would contain the secret.
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=2 * ENDS)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        """End all pages and their processes."""
        for page in list(self._pages):
            await page.close(code=WSCloseCode.GOING_AWAY)
        if self._runner is not None:
            await self._runner.cleanup()
        self._socket.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        given, _, rest = request.path.removeprefix("/").partition("/")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._secret.encode()):
            return self._refused("This needs the whole address that `extmem top --web` has printed.")
        if request.headers.get("Host") != self._host:
            return self._refused(f"This is served as {self._host} alone.")
        if request.method != "GET":
            return self._text("Only GET is served.", 405)
        if rest == "":
            socket_url = f"ws://{self._host}/{self._secret}/ws"
            return self._text(HTML.format(base=f"/{self._secret}/", socket=socket_url), 200, "text/html")
        if rest == "ws":
            return await self._page(request)
        if rest == "static/top.css":
            return self._text(STYLE, 200, "text/css")
        if rest == "static/top.js":
            return self._text(SCRIPT, 200, "text/javascript")
        kind = _FILES.get(rest.removeprefix("static/")) if rest.startswith("static/") else None
        if kind is None:
            return self._text("Nothing has this address.", 404)
        return web.Response(body=_file(rest), content_type=kind, headers=self._headers)

    def _refused(self, why: str) -> web.Response:
        return self._text(why, 403)

    def _text(self, text: str, status: int, kind: str = "text/plain") -> web.Response:
        return web.Response(text=text, status=status, content_type=kind, headers=self._headers)

    async def _page(self, request: web.Request) -> web.StreamResponse:
        """Run the program for one page, until either of the two ends."""
        if request.headers.get("Origin", f"http://{self._host}") != f"http://{self._host}":
            return self._refused("A page of another site may not use this.")
        if len(self._pages) >= MOST_PAGES:
            return self._text(f"{MOST_PAGES} pages are open; close one first.", 503)
        page = web.WebSocketResponse(heartbeat=15, max_msg_size=_LONGEST)
        self._pages.add(page)
        try:
            await page.prepare(request)
            await self._run(page, _size(request.query.get("width"), 80), _size(request.query.get("height"), 24))
        finally:
            self._pages.discard(page)
        return page

    async def _run(self, page: web.WebSocketResponse, width: int, height: int) -> None:
        program = await Program.start(self._command, width, height)
        drawing = asyncio.create_task(_draw(program, page))
        try:
            async for message in page:
                if message.type == WSMsgType.TEXT:
                    await _pass_on(message.data, page, program)
        finally:
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing
            await program.end()


async def _draw(program: Program, page: web.WebSocketResponse) -> None:
    """Send what the program draws, until it ends; then the page ends."""
    with contextlib.suppress(ConnectionError):
        async for data in program.drawn():
            await page.send_bytes(data)
        await page.close()


async def _pass_on(text: str, page: web.WebSocketResponse, program: Program) -> None:
    """Pass a message of the page on to its program. One that is none of the script's is ignored."""
    try:
        message = json.loads(text)
    except ValueError:
        return
    match message:
        case ["stdin", str(typed)]:
            await program.typed(typed.encode("utf-8", "replace"))
        case ["resize", {"width": int(width), "height": int(height)}]:
            await program.tell({"type": "resize", "width": _size(width, 80), "height": _size(height, 24)})
        case ["ping", str(sent)]:
            await page.send_json(["pong", sent])
        case ["focus" | "blur" as change, *_]:
            await program.tell({"type": change})


def _size(given: object, otherwise: int) -> int:
    try:
        return max(1, min(_WIDEST, int(str(given))))
    except ValueError:
        return otherwise


def _file(path: str) -> bytes:
    return importlib.resources.files("textual_serve").joinpath(path).read_bytes()


def _listening(port: int) -> socket.socket:
    """Return a socket that listens on this port of 127.0.0.1, which no other process can share."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)  # Windows, where SO_REUSEADDR shares a port
        option = socket.SO_REUSEADDR if exclusive is None else exclusive
        listening.setsockopt(socket.SOL_SOCKET, option, 1)
        listening.bind((ADDRESS, port))
        listening.listen()
    except BaseException:
        listening.close()
        raise
    return listening


def serve(port: int, interval: float) -> None:
    """Print the address and serve it until an interrupt. Errors: KeyboardInterrupt; ClickException for the port."""
    command = [sys.executable, "-m", "extmem", "top", "--served", "--interval", f"{interval:g}"]
    try:
        server = TopServer(command, port)
    except OSError as error:
        raise click.ClickException(
            f"port {port} of {ADDRESS} cannot be used ({error}); give another --port, or none for any free one"
        ) from error
    asyncio.run(_serve(server))


async def _serve(server: TopServer) -> None:
    await server.start()
    try:
        emit_line(server.url)
        words("Open this address in a browser on this machine. Whoever has it can see what you share. Ctrl-C ends it.")
        await asyncio.Event().wait()
    finally:
        await server.close()
