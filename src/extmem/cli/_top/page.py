"""The page of `extmem top --web`: a terminal that textual-serve's script draws. It loads nothing from elsewhere."""

from __future__ import annotations

from typing import Final

__all__ = ["HTML", "SCRIPT", "STYLE", "security_headers"]

STYLE: Final = """
@font-face { font-family: "Roboto Mono"; src: url("fonts/RobotoMono-VariableFont_wght.ttf"); }
html, body { margin: 0; height: 100%; background: #121212; color: #e0e0e0; font: 16px "Roboto Mono", monospace; }
#terminal { width: 100vw; height: 100vh; }
.message { display: none; position: absolute; inset: 0; z-index: 10; padding: 20vh 2em; background: #121212; }
.message a { color: inherit; }
body.-closed .message { display: block; }
"""

SCRIPT: Final = """// Keys reach the program without a click, once textual.js has made its terminal on the same event.
addEventListener("load", () => setTimeout(() => document.querySelector(".xterm-helper-textarea")?.focus()));
"""

HTML: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>extmem top</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{base}static/css/xterm.css">
<link rel="stylesheet" href="{base}static/top.css">
<script src="{base}static/js/textual.js"></script>
<script src="{base}static/top.js"></script>
</head>
<body>
<div class="message" role="status">extmem top has ended here. <a href="{base}">Start it again</a>, unless the program
that printed this address has ended, too.</div>
<div id="terminal" class="textual-terminal" data-session-websocket-url="{socket}" data-font-size="16"></div>
<noscript>This page draws a terminal, for which it needs JavaScript.</noscript>
</body>
</html>
"""
"""`base` is the path of the page, `socket` the address of its websocket."""


def security_headers(host: str) -> dict[str, str]:
    """Return the headers of every response. host: the address and port of the server.

    The address is a secret, so no browser may keep it or send it to anyone; and the page may load and reach nothing
    but this server.
    """
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
        f"img-src 'self' data:; connect-src 'self' ws://{host}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
