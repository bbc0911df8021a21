"""The pictures of README and docs, drawn from the lifetime table of the model, for light and for dark pages.

A line is solid if one object keeps the other alive according to `extmem.objects.lifetimes.KEEPS`, and dashed if it only
refers to it. The pictures change with the table; `python -m scripts.docs --check` reports outdated pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

from extmem.objects.lifetimes import KEEPS, Holder, Keeps

__all__ = ["THEMES", "how_it_works", "lifetimes"]

_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


@dataclass(frozen=True)
class Tone:
    """Colours of one kind of box."""

    fill: str
    edge: str
    ink: str


@dataclass(frozen=True)
class Theme:
    """Colours of one picture."""

    ink: str
    faint: str
    line: str
    card: Tone
    memory: Tone
    handle: Tone
    name: Tone
    object: Tone
    payload: Tone
    view: Tone


THEMES = {
    "light": Theme(
        ink="#1f2328",
        faint="#59636e",
        line="#59636e",
        card=Tone("#f6f8fa", "#d1d9e0", "#1f2328"),
        memory=Tone("#ddf4ff", "#54aeff", "#0a3069"),
        handle=Tone("#fbefff", "#c297ff", "#512a97"),
        name=Tone("#fff8c5", "#d4a72c", "#633c01"),
        object=Tone("#ffffff", "#8c959f", "#1f2328"),
        payload=Tone("#dafbe1", "#4ac26b", "#044f1e"),
        view=Tone("#ffffff", "#d1d9e0", "#59636e"),
    ),
    "dark": Theme(
        ink="#f0f6fc",
        faint="#9198a1",
        line="#9198a1",
        card=Tone("#151b23", "#3d444d", "#f0f6fc"),
        memory=Tone("#0c2d6b", "#388bfd", "#cae8ff"),
        handle=Tone("#3c1e70", "#a371f7", "#eddeff"),
        name=Tone("#4b2900", "#bb8009", "#f8e3a1"),
        object=Tone("#212830", "#9198a1", "#f0f6fc"),
        payload=Tone("#033a16", "#2ea043", "#aff5b4"),
        view=Tone("#0d1117", "#3d444d", "#9198a1"),
    ),
}


class _Canvas:
    """SVG elements in the order drawn."""

    def __init__(self, width: int, height: int, theme: Theme, title: str) -> None:
        self.theme = theme
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-label="{escape(title, {chr(34): "&quot;"})}" font-family="{_FONT}">',
            f"<title>{escape(title)}</title>",
            "<defs>"
            '<marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">'
            f'<path d="M0.5 1 L9.5 5 L0.5 9 z" fill="{theme.line}"/></marker>'
            "</defs>",
        ]

    def box(self, x: int, y: int, width: int, height: int, tone: Tone, *, radius: int = 8) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}" '
            f'fill="{tone.fill}" stroke="{tone.edge}" stroke-width="1.5"/>'
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        ink: str,
        *,
        size: int = 14,
        bold: bool = False,
        mono: bool = False,
        anchor: str = "middle",
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        family = f' font-family="{_MONO}"' if mono else ""
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" fill="{ink}" text-anchor="{anchor}"{weight}{family}>'
            f"{escape(words)}</text>"
        )

    def chip(self, x: int, y: int, width: int, words: str, tone: Tone, *, below: str = "", mono: bool = False) -> None:
        """A small box with one or two lines in it."""
        height = 52 if below else 40
        self.box(x, y, width, height, tone, radius=6)
        middle = x + width / 2
        self.text(middle, y + (22 if below else 25), words, tone.ink, bold=not mono, mono=mono)
        if below:
            self.text(middle, y + 41, below, tone.ink, size=12)

    def arrow(self, path: str, *, keeps: bool) -> None:
        dash = "" if keeps else ' stroke-dasharray="5 5"'
        self.parts.append(
            f'<path d="{path}" fill="none" stroke="{self.theme.line}" stroke-width="2"{dash} marker-end="url(#tip)"/>'
        )

    def done(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def how_it_works(theme: Theme) -> str:
    """Return the picture of README: two processes, the object manager between them, and the payload below."""
    draw = _Canvas(1000, 486, theme, "Two processes, the object manager between them, one payload that both map")
    for x, width, title, below in (
        (20, 280, "your process", 'device.allocate(…, name="camera")'),
        (370, 260, "object manager", "on Linux, the broker"),
        (700, 280, "any other process", 'extmem.open("camera")'),
    ):
        draw.box(x, 16, width, 296, theme.card, radius=12)
        draw.text(x + width / 2, 44, title, theme.ink, size=16, bold=True)
        draw.text(x + width / 2, 65, below, theme.faint, size=12, mono="(" in below)

    exporting, imported = KEEPS[Holder.EXPORTER], KEEPS[Holder.IMPORTED_NT]
    handle, name = KEEPS[Holder.NT_HANDLE], KEEPS[Holder.NAME]

    # Lines first, boxes over them.
    draw.arrow("M160 126 V152", keeps=True)
    draw.arrow("M840 126 V152", keeps=True)
    draw.arrow("M280 178 C330 178 340 205 390 205", keeps=bool(exporting.object))
    draw.arrow("M280 268 C330 268 340 240 390 240", keeps=bool(handle.object))
    draw.arrow("M720 178 C670 178 660 205 610 205", keeps=bool(imported.object))
    draw.arrow("M500 134 V180", keeps=bool(name.object))
    draw.arrow("M500 268 V360", keeps=True)  # whatever keeps a shared object keeps its payload
    draw.arrow("M66 204 V360", keeps=bool(exporting.payload))
    draw.arrow("M840 204 V360", keeps=bool(imported.payload))

    draw.chip(40, 86, 240, "frame.numpy()", theme.view, mono=True)
    draw.chip(40, 152, 240, "memory object", theme.memory, below="exporting")
    draw.chip(92, 242, 188, "NT handle 0x4", theme.handle, below="rights, inherit flag")
    draw.chip(420, 94, 160, "name “camera”", theme.name)
    draw.box(390, 180, 220, 88, theme.object, radius=6)
    draw.text(500, 208, "shared object", theme.object.ink, bold=True)
    draw.text(500, 230, "security descriptor", theme.faint, size=12)
    draw.text(500, 249, "counts its holders", theme.faint, size=12)
    draw.chip(720, 86, 240, "frame.numpy()", theme.view, mono=True)
    draw.chip(720, 152, 240, "memory object", theme.memory, below="imported, read-only if published so")

    draw.box(20, 360, 960, 76, theme.payload, radius=12)
    what = "payload: the bytes, mapped by both processes, never copied"
    draw.text(500, 392, what, theme.payload.ink, bold=True)
    draw.text(
        500,
        416,
        "with its descriptor: size, memory type, device, dedicated resource, shape and dtype, owner",
        theme.payload.ink,
        size=13,
    )
    _legend(draw, 322, 466)
    return draw.done()


def _legend(draw: _Canvas, x: int, y: int) -> None:
    draw.arrow(f"M{x} {y - 4} H{x + 44}", keeps=True)
    draw.text(x + 54, y, "keeps alive", draw.theme.faint, size=13, anchor="start")
    draw.arrow(f"M{x + 160} {y - 4} H{x + 204}", keeps=False)
    draw.text(x + 214, y, "refers to, keeps nothing alive", draw.theme.faint, size=13, anchor="start")


_COLUMNS = (("payload", "payload"), ("object", "shared object"), ("name", "its name"), ("kmt", "KMT number"))


def lifetimes(theme: Theme) -> str:
    """Return the picture of the lifetime table: a row for each holder, a dot for each object that it keeps alive."""
    row, top = 38, 74
    height = top + row * len(KEEPS) + 20
    draw = _Canvas(900, height, theme, "Lifetime table: which holder keeps payload, shared object, name and KMT number")
    draw.box(8, 8, 884, height - 16, theme.card, radius=12)
    centres = (480, 600, 720, 830)
    for centre, (_, title) in zip(centres, _COLUMNS, strict=True):
        draw.text(centre, 44, title, theme.ink, bold=True)
    draw.text(28, 44, "holder", theme.ink, bold=True, anchor="start")
    for number, (holder, keeps) in enumerate(KEEPS.items()):
        y = top + row * number
        draw.parts.append(f'<path d="M20 {y - 10} H880" stroke="{theme.card.edge}" stroke-width="1"/>')
        nothing = keeps == Keeps(0, 0, 0, 0)
        draw.text(28, y + 14, holder.value, theme.faint if nothing else theme.ink, anchor="start")
        for centre, (field, _) in zip(centres, _COLUMNS, strict=True):
            tone = {
                "payload": theme.payload,
                "object": theme.name,
                "name": theme.name,
                "kmt": theme.handle,
            }[field]
            full = getattr(keeps, field)
            draw.parts.append(
                f'<circle cx="{centre}" cy="{y + 9}" r="8" fill="{tone.edge}" stroke="{tone.edge}" stroke-width="1.5"/>'
                if full
                else f'<path d="M{centre - 5} {y + 9} h10" stroke="{theme.faint}" stroke-width="1.5"/>'
            )
    return draw.done()
