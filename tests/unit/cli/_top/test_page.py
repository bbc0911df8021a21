"""The page of `extmem top --web`: it names nothing that is elsewhere, and its headers permit nothing else."""

from __future__ import annotations

import re

from extmem.cli._top.page import HTML, SCRIPT, STYLE, security_headers

HOST = "127.0.0.1:8000"


def addresses(text: str) -> list[str]:
    """Return the addresses in a page."""
    return re.findall(r"(?:src|href|url|data-session-websocket-url)[=(]\"([^\"]*)\"", text)


def test_all_addresses_are_below_the_secret_one() -> None:
    found = addresses(HTML.format(base="/SECRET/", socket=f"ws://{HOST}/SECRET/ws") + STYLE)
    assert len(found) >= 6
    strange = [one for one in found if not one.startswith(("/SECRET/", f"ws://{HOST}/SECRET/", "data:", "fonts/"))]
    assert not strange
    assert "//" not in SCRIPT.partition("\n")[2]


def test_planted_addresses_elsewhere_are_found() -> None:
    assert addresses('<script src="https://example.org/x.js"></script>') == ["https://example.org/x.js"]


def test_the_headers_keep_the_address_secret_and_the_page_alone() -> None:
    headers = security_headers(HOST)
    assert (headers["Referrer-Policy"], headers["Cache-Control"]) == ("no-referrer", "no-store")
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'" and policy["script-src"] == "'self'"
    assert policy["connect-src"] == f"'self' ws://{HOST}"
