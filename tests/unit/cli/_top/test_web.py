"""The server of `extmem top --web`: nothing is sent without the secret; with it, the page and its program."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import click
import pytest

pytest.importorskip("textual_serve", reason="textual-serve is not installed")

import aiohttp
from aiohttp import WSMsgType

from extmem.cli._top import web
from extmem.cli._top.web import ADDRESS, MOST_PAGES, TopServer, serve
from extmem.testing.waiting import DEADLINE

PROGRAM = """
import json, os, sys
out, put = sys.stdout.buffer, lambda kind, data: (out.write(kind + len(data).to_bytes(4, "big") + data), out.flush())
out.write(b"__GANGLION__\\n"); out.flush()
put(b"D", b"began at " + os.environ["COLUMNS"].encode() + b"x" + os.environ["ROWS"].encode())
while head := sys.stdin.buffer.read(5):
    data = sys.stdin.buffer.read(int.from_bytes(head[1:], "big"))
    put(b"D", head[:1] + data)
    if data == b"q" or b"quit" in data:
        put(b"M", b'{"type": "exit"}')
        break
"""
"""A program that speaks as Textual's driver does, and returns what it gets."""


class Bed:
    """A server in this process, and a client."""

    def __init__(self, server: TopServer, client: aiohttp.ClientSession) -> None:
        self.server, self.client, self.url = server, client, server.url

    async def get(self, url: str, **options: Any) -> tuple[int, Any, str]:
        """Return the status, the headers and the text of a response."""
        async with self.client.get(url, **options) as response:
            return response.status, response.headers, await response.text()

    async def status(self, url: str, **options: Any) -> int:
        return (await self.get(url, **options))[0]

    def page(self, query: str = "?width=100&height=20", **options: Any) -> Any:
        return self.client.ws_connect(f"{self.url}ws{query}", **options)


def run(test: Callable[[Bed], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        server = TopServer([sys.executable, "-c", PROGRAM])
        await server.start()
        try:
            async with asyncio.timeout(DEADLINE), aiohttp.ClientSession() as client:
                await test(Bed(server, client))
        finally:
            await server.close()

    asyncio.run(all_of_it())


async def received(page: aiohttp.ClientWebSocketResponse) -> str:
    message = await page.receive()
    assert message.type in (WSMsgType.BINARY, WSMsgType.TEXT), message
    return message.data if isinstance(message.data, str) else message.data.decode()


def parts_of(url: str) -> tuple[str, str]:
    """Return the address up to the secret, and the secret."""
    found = urlsplit(url)
    return f"http://{found.netloc}", found.path.strip("/")


PATHS = ("", "ws", "static/js/textual.js", "static/top.css", "static/top.js", "static/css/xterm.css")


def test_every_part_is_served_with_the_secret() -> None:
    async def test(bed: Bed) -> None:
        for path in PATHS:
            status, headers, text = await bed.get(bed.url + path)
            assert status == (400 if path == "ws" else 200), path  # a websocket is no page
            assert path == "ws" or (text and headers["Referrer-Policy"] == "no-referrer")
        assert parts_of(bed.url)[1] in (await bed.get(bed.url))[2]

    run(test)


@pytest.mark.parametrize("path", PATHS)
def test_no_part_is_served_without_the_secret_or_with_another_one(path: str) -> None:
    async def test(bed: Bed) -> None:
        base, secret = parts_of(bed.url)
        assert len(secret) >= 40
        others = [f"{base}/{path}", f"{base}//{path}", f"{base}/{secret[:-1]}/{path}", f"{base}/{secret}x/{path}"]
        others += [f"{base}/{secret.swapcase()}/{path}", f"{base}/x/{secret}/{path}", f"{base}/{path}?{secret}"]
        for url in others:
            status, _, text = await bed.get(url)
            assert status == 403 and secret not in text, url
            assert (await bed.client.post(url)).status == 403

    run(test)


def test_a_websocket_without_the_secret_is_refused_and_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    plain = web.Program.start

    async def counted(command: Sequence[str], width: int, height: int) -> web.Program:
        started.append(command)
        return await plain(command, width, height)

    monkeypatch.setattr(web.Program, "start", counted)

    async def test(bed: Bed) -> None:
        base, secret = parts_of(bed.url)
        for url in (f"{base}/ws", f"{base}/{secret[1:]}/ws", f"{base}/wrong/ws"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await bed.client.ws_connect(url)
            assert refused.value.status == 403
        assert not started
        # The twin: with the secret the program starts.
        async with bed.page() as page:
            assert await received(page) == "began at 100x20"
        assert len(started) == 1

    run(test)


def test_another_host_and_another_origin_are_refused() -> None:
    async def test(bed: Bed) -> None:
        host = urlsplit(bed.url).netloc
        assert await bed.status(bed.url, headers={"Host": "evil.example"}) == 403
        assert await bed.status(bed.url, headers={"Host": host.replace(ADDRESS, "localhost")}) == 403
        assert await bed.status(bed.url, headers={"Host": host}) == 200
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await bed.client.ws_connect(bed.url + "ws", headers={"Origin": "http://evil.example"})
        assert refused.value.status == 403
        async with bed.client.ws_connect(bed.url + "ws", headers={"Origin": f"http://{host}"}) as page:
            assert (await received(page)).startswith("began")

    run(test)


def test_only_this_machine_can_connect() -> None:
    async def test(bed: Bed) -> None:
        name = bed.server._socket.getsockname()
        assert name[0] == ADDRESS == "127.0.0.1"

    run(test)


@pytest.mark.parametrize(
    "path", ["static/", "static/../page.py", "static/js/other.js", "download/x", "static/%2e%2e/x"]
)
def test_what_is_not_listed_does_not_exist(path: str) -> None:
    async def test(bed: Bed) -> None:
        assert await bed.status(f"{bed.url}{path}") in (403, 404)
        assert (await bed.client.post(bed.url)).status == 405

    run(test)


def test_keys_sizes_and_the_focus_reach_the_program_and_other_messages_do_not() -> None:
    async def test(bed: Bed) -> None:
        async with bed.page() as page:
            await received(page)
            for nothing in ("", "{", "[]", "7", '["stdin"]', '["stdin", 7]', '["resize", {}]', '["other", 1]', "[[]]"):
                await page.send_str(nothing)
            await page.send_bytes(b"x")
            await page.send_str(json.dumps(["stdin", "é"]))
            assert await received(page) == "Dé"
            await page.send_str('["resize", {"width": 90, "height": 1e9}]')
            await page.send_str('["resize", {"width": 90, "height": 999999}]')
            assert json.loads((await received(page))[1:]) == {"type": "resize", "width": 90, "height": 1000}
            await page.send_str('["focus"]')
            assert "focus" in await received(page)
            await page.send_str('["blur"]')
            assert "blur" in await received(page)
            await page.send_str('["ping", "12"]')
            assert await received(page) == '["pong", "12"]'
            await page.send_str('["stdin", "q"]')
            assert await received(page) == "Dq"
            assert (await page.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSING)

    run(test)


@pytest.mark.parametrize(
    ("query", "size"), [("", "80x24"), ("?width=x&height=-5", "80x1"), ("?width=99999999", "1000x24")]
)
def test_sizes_that_a_page_asks_for_are_bounded(query: str, size: str) -> None:
    async def test(bed: Bed) -> None:
        async with bed.page(query) as page:
            assert await received(page) == f"began at {size}"

    run(test)


def test_so_many_pages_and_no_more_run_at_a_time() -> None:
    async def test(bed: Bed) -> None:
        pages = [await bed.page() for _ in range(MOST_PAGES)]
        for page in pages:
            await received(page)
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await bed.page()
        assert refused.value.status == 503
        await pages[0].close()
        while len(bed.server._pages) == MOST_PAGES:
            await asyncio.sleep(0.005)
        again = await bed.page()
        assert (await received(again)).startswith("began")
        for page in (*pages[1:], again):
            await page.close()

    run(test)


def test_a_message_that_is_too_long_ends_the_page() -> None:
    async def test(bed: Bed) -> None:
        async with bed.page() as page:
            await received(page)
            await page.send_str(json.dumps(["stdin", "x" * 200_000]))
            assert (await page.receive()).type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)

    run(test)


def test_a_port_that_is_in_use_is_refused_with_the_remedy() -> None:
    with socket.socket() as used:
        used.bind((ADDRESS, 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(click.ClickException, match=f"port {port} of 127.0.0.1 cannot be used .*another --port"):
            serve(port, 1.0)


def test_each_server_has_a_secret_of_its_own() -> None:
    urls = []
    for _ in range(5):
        server = TopServer([sys.executable])
        urls.append(parts_of(server.url)[1])
        server._socket.close()
    assert len(set(urls)) == 5
