"""`extmem top --web`: the program in a browser on this machine, for whoever has the address, and nobody else.

How this works. Each page that a browser opens has a websocket, and each websocket a process of its own, which runs the
same program with Textual's driver for the web; textual-serve's `AppService` carries bytes between the two, and its
script draws them.

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
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

import click
from aiohttp import WSMsgType, web
from textual_serve.app_service import AppService
from textual_serve.download_manager import DownloadManager

from extmem.cli._out import emit_line, words
from extmem.cli._top.page import HTML, SCRIPT, STYLE, security_headers

__all__ = ["ADDRESS", "MOST_PAGES", "TopServer", "serve"]

ADDRESS: Final = "127.0.0.1"
MOST_PAGES: Final = 8
"""Pages at the same time, each of which is a process."""
_SECRET_BYTES: Final = 32
_WIDEST: Final = 1_000
"""Columns and rows that a page may ask for, at most."""
_LONGEST: Final = 1 << 16
"""Bytes of a message of a page, at most."""
_ENDS: Final = 5.0
"""Seconds in which a page's process is to end."""
_FILES: Final = {
    "css/xterm.css": "text/css",
    "js/textual.js": "text/javascript",
    "fonts/RobotoMono-VariableFont_wght.ttf": "font/ttf",
    "fonts/RobotoMono-Italic-VariableFont_wght.ttf": "font/ttf",
}


class TopServer:
    """The server. `command`: what each page runs."""

    def __init__(self, command: Sequence[str], port: int = 0) -> None:
        """port: 0 for any free one. Errors: OSError if it cannot be had."""
        self._command = subprocess.list2cmdline(command) if sys.platform == "win32" else f"exec {shlex.join(command)}"
        self._secret = secrets.token_urlsafe(_SECRET_BYTES)
        self._socket = _listening(port)
        self._host = f"{ADDRESS}:{self._socket.getsockname()[1]}"
        self._headers = security_headers(self._host)
        self._pages = 0
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
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=_ENDS)
        await self._runner.setup()
        await web.SockSite(self._runner, self._socket).start()

    async def close(self) -> None:
        """End all pages and their processes."""
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
        if self._pages >= MOST_PAGES:
            return self._text(f"{MOST_PAGES} pages are open; close one first.", 503)
        self._pages += 1
        try:
            page = web.WebSocketResponse(heartbeat=15, max_msg_size=_LONGEST)
            await page.prepare(request)
            await self._run(page, _size(request.query.get("width"), 80), _size(request.query.get("height"), 24))
            return page
        finally:
            self._pages -= 1

    async def _run(self, page: web.WebSocketResponse, width: int, height: int) -> None:
        async def close() -> None:
            await page.close()

        service = AppService(
            self._command,
            write_bytes=page.send_bytes,
            write_str=page.send_str,
            close=close,
            download_manager=DownloadManager(),
        )
        await service.start(width, height)
        try:
            async for message in page:
                if message.type == WSMsgType.TEXT:
                    await _pass_on(message.data, page, service)
        finally:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(service.stop(), _ENDS)


async def _pass_on(text: str, page: web.WebSocketResponse, service: AppService) -> None:
    """Pass a message of the page on to its process. One that is none of the script's is ignored."""
    import json

    try:
        message = json.loads(text)
    except ValueError:
        return
    match message:
        case ["stdin", str(typed)]:
            await service.send_bytes(typed.encode("utf-8", "replace"))
        case ["resize", {"width": int(width), "height": int(height)}]:
            await service.set_terminal_size(_size(width, 80), _size(height, 24))
        case ["ping", str(sent)]:
            await page.send_json(["pong", sent])
        case ["focus", *_]:
            await service.focus()
        case ["blur", *_]:
            await service.blur()


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
