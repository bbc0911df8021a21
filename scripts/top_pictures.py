"""`python -m scripts.top_pictures` takes the pictures of `extmem top` in docs/pictures, for light and for dark pages.

They are of a real run: three processes with a broker of their own share memory, a timeline and a channel, and the
program, without a terminal, shows them. So pids, times and rates differ from one run to the next, and no check compares
the files.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

from extmem.testing.children import Peer
from extmem.testing.runtime import Runtime
from extmem.testing.waiting import DEADLINE

__all__ = ["main", "without_fonts"]

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "pictures"
SIZE = (116, 26)
THEMES = {"dark": "textual-dark", "light": "textual-light"}
_FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"

NAMED = "import pathlib, threading, time\npathlib.Path('/proc/self/comm').write_text('{}')"
"""Gives a process the name that the picture shows."""
CAMERA = """
device = extmem.open_device(kind='host')
frames = device.allocate((270, 480, 4), 'uint8', name='camera/left')
right = device.allocate((270, 480, 4), 'uint8', name='camera/right')
table = device.allocate((1024, 8), 'float32', name='poses', access=extmem.Access.READ)
shown = device.timeline(name='shown')
def film(number=0):
    while True:
        number += 1
        for memory in (frames, right) if number % 2 else (frames,):
            with memory.update():
                memory.fill(number % 256)
        shown.signal(number)
        time.sleep(1 / 60)
threading.Thread(target=film, daemon=True).start()
channel = extmem.create_channel('camera', (270, 480, 4), 'uint8')
def send():
    while True:
        with channel.write():
            pass
        time.sleep(1 / 60)
threading.Thread(target=send, daemon=True).start()
"""
VIEWER = """
frames, shown = extmem.open('camera/left'), extmem.open_timeline('shown')
handle = extmem.open_handle('camera/left', extmem.Access.READ)
channel = extmem.open_channel('camera')
def read(each=0.001):
    for frame in channel:
        time.sleep(each)
threading.Thread(target=read, daemon=True).start()
"""
RECORDER = """
opened = [extmem.open(name) for name in ('camera/left', 'camera/right', 'poses')]
shown = extmem.open_timeline('shown', access=extmem.Access.READ)
channel = extmem.open_channel('camera', every=True)
def record():
    for frame in channel:
        time.sleep(0.1)
threading.Thread(target=record, daemon=True).start()
"""


def without_fonts(picture: str) -> str:
    """Return an SVG file that loads no font from elsewhere, and uses one of the viewer's."""
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    return re.sub(r"font-family: [^;]*;", f"font-family: {_FONT};", picture)


async def _pictures(theme: str) -> dict[str, str]:
    """Return the pictures of the tables, by their names."""
    from extmem.cli._top.app import TopApp
    from extmem.cli._top.items import Subject
    from extmem.cli._top.reading import channel_provider

    app = TopApp(interval=0.5, provider=channel_provider())
    found = {}
    async with asyncio.timeout(DEADLINE), app.run_test(size=SIZE) as pilot:
        app.theme = THEMES[theme]
        for subject, key in ((Subject.PAYLOADS, "1"), (Subject.TIMELINES, "2"), (Subject.CHANNELS, "3")):
            await pilot.press(key)

            def complete(subject: Subject = subject) -> bool:
                rows = () if app.state is None else app.state.rows[subject]
                return any((row.rate or 0) > 1 and len(row.item.holders) == 3 for row in rows)

            while not complete():
                await pilot.pause(0.05)
            await pilot.pause(0.5)
            found[f"top-{subject.name.lower()}-{theme}.svg"] = without_fonts(app.export_screenshot(title="extmem top"))
    return found


def main() -> int:
    """Take the pictures and write them. Return the exit status."""
    with Runtime() as runtime:
        os.environ |= runtime.environment
        with Peer() as camera, Peer() as viewer, Peer() as recorder:
            for peer, name, source in (
                (camera, "camera", CAMERA),
                (viewer, "viewer", VIEWER),
                (recorder, "recorder", RECORDER),
            ):
                peer(f"{NAMED.format(name)}\n{source}\nNone")
            for theme in THEMES:
                for name, picture in asyncio.run(_pictures(theme)).items():
                    (FOLDER / name).write_text(picture, encoding="utf-8")
                    sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
