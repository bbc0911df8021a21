"""`extmem demo`: two processes share an animation by name, and each promise is checked."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extmem.cli._guard import FAILED, guarded
from extmem.cli._out import bytes_in_words, console, emit_json, emit_line, words
from extmem.errors import NameNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from extmem.cli._worker import Worker

__all__ = ["demo"]

_ACTS = "extmem.cli._demo.acts"
_HEIGHT, _WIDTH = 270, 480
_COLUMNS, _SHOWN = 4, 12


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Report the progress: by a live bar on a terminal, by some lines in a pipe."""
    if not sys.stderr.isatty():

        def line(done: int) -> None:
            if done % max(1, total // 4) == 0 or done == total:
                words(f"  {done} of {total} frames drawn by the exporter and checked by the importer")

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    with Progress(
        TextColumn("  frames"), BarColumn(bar_width=None), MofNCompleteColumn(), console=console(sys.stderr)
    ) as bar:
        task = bar.add_task("frames", total=total)
        yield lambda done: bar.update(task, completed=done)


class _Demo:
    """One run of the demo, with its results."""

    def __init__(self, frames: int, *, quiet: bool) -> None:
        self.frames = frames
        self.name = f"extmem demo {os.getpid()}-{secrets.token_hex(2)}"
        self.quiet = quiet
        self.facts: dict[str, Any] = {"name": self.name, "frames": frames}
        self.wrong: list[str] = []

    def show(self, text: str = "") -> None:
        """Print a line, unless JSON was requested."""
        if not self.quiet:
            emit_line(text)

    def expect(self, condition: bool, problem: str) -> None:
        """Record and report a problem if the condition is false."""
        if not condition:
            self.wrong.append(problem)
            words(f"WRONG: {problem}")

    # The steps.

    def share(self, exporter: Worker, importer: Worker) -> None:
        """Let the exporter draw the frames, and the importer check each of them."""
        exporter.start(f"{_ACTS}:publish", self.name, self.frames, _HEIGHT, _WIDTH)
        stream = exporter.stream()
        device = next(stream)
        self.facts |= {"device": device, "size": device["size"], "exporter": exporter.pid, "importer": importer.pid}
        self.show(f"Device: {device['name']}, UUID {device['uuid']}")
        if device["kind"] == "host":
            self.show("  (host memory in place of GPU memory; names, handles, rights and rules are the same)")
        self.show(f"Process {exporter.pid} shares {bytes_in_words(device['size'])} for reading, named {self.name!r}.")
        opened = importer.call(f"{_ACTS}:importer_open", self.name)
        array = f"{' x '.join(map(str, opened['shape']))} {opened['dtype']}"
        where = "nothing copied" if opened["host_visible"] else "in the GPU's memory"
        self.show(f"Process {importer.pid} opens that name: {array}, read-only, {where}.")
        self.expect(opened["read_only"], "the importer got the right to write")
        bad = []
        with _progress(self.frames) as progress:
            for index, digest in stream:
                if not importer.call(f"{_ACTS}:check", index, digest):
                    bad.append(index)
                progress(index + 1)
        self.expect(not bad, f"frames {bad} differ from their checksums")
        again = sorted({0, self.frames // 3, self.frames - 1})
        different = [index for index in again if not importer.call(f"{_ACTS}:draw_again", index)]
        self.expect(not different, f"frames {different} differ from those that the importer draws itself")
        self.facts |= {"checked": self.frames - len(bad), "redrawn": again}
        self.show(f"All {self.frames} checksums match, and frames {again} equal those that the importer draws itself.")

    def show_holders(self) -> None:
        """Show the holders of the payload while both processes run."""
        from extmem.cli._payloads import payload_table

        held = self.facts["held"] = self._ours()
        self.expect(
            len(held) == 1 and len(held[0]["holders"]) == 2, f"{len(held)} payloads are listed, not one held by two"
        )
        if not self.quiet:
            emit_line()
            payload_table(held, title="Holders of the payload (extmem ps):")

    def refuse(self, importer: Worker) -> None:
        """Let the importer try to write to the read-only payload."""
        self.facts["refusals"] = importer.call(f"{_ACTS}:try_to_write", self.name)
        self.show("The importer tries to write:")
        for refusal in self.facts["refusals"]:
            self.expect(bool(refusal["error"]), f"the importer was able to {refusal['attempt']}")
            self.show(f"  {refusal['attempt']}: refused by {refusal['by']}")
            self.show(f"    {refusal['error'].splitlines()[0] if refusal['error'] else '(allowed)'}")

    def save(self, importer: Worker, out: Path) -> None:
        """Save a picture of the frames that the importer reads."""
        count = min(_SHOWN, self.frames)
        indices = [index * self.frames // count for index in range(count)]
        caption = (
            f"{self.frames} frames drawn by process {self.facts['exporter']}, read by {importer.pid} in shared memory "
            f"of {self.facts['device']['name']}"
        )
        out.write_bytes(importer.call(f"{_ACTS}:sheet", indices, min(_COLUMNS, count), caption))
        self.facts["picture"] = str(out)
        self.show(f"Saved {out}: {count} frames, as the importer reads them.")

    def part(self, exporter: Worker, importer: Worker) -> None:
        """End the exporter first; the payload stays until the importer ends, too."""
        exporter.call(f"{_ACTS}:exporter_close")
        exporter.leave()
        holders = [len(payload["holders"]) for payload in self._ours()]
        self.expect(holders == [1], "the importer lost the payload with its exporter")
        self.show("The exporter has ended; the importer still holds the payload and its name.")
        importer.call(f"{_ACTS}:importer_close")
        importer.leave()

    def prove(self, descriptors: int, broker_before: int) -> None:
        """Check that no payload, no name and no fd is left."""
        import extmem
        from extmem.manager import manager

        deadline = time.monotonic() + 5  # the broker detects the end of a process a moment later
        while (left := self._ours()) and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            extmem.open_handle(self.name, extmem.Access.READ).close()
            name_exists = True
        except NameNotFoundError:
            name_exists = False
        state = manager().status()
        broker = (state.fds if state is not None else 0) - broker_before
        own = _open_files() - descriptors
        self.facts["left"] = {
            "payloads": len(left),
            "name": name_exists,
            "descriptors": own,
            "broker_descriptors": broker,
        }
        self.expect(not left and not name_exists and own <= 0, f"something is left: {self.facts['left']}")
        self.show(
            f"Left behind: {len(left)} payloads, {int(name_exists)} names, {own} open files in this process, "
            f"{broker} in the broker."
        )

    def _ours(self) -> list[dict[str, Any]]:
        from extmem.cli.ps import live_payloads

        ours = (self.facts.get("exporter"), self.facts.get("importer"))
        return [
            payload
            for payload in live_payloads() or []
            if self.name in payload["names"] or any(holder["pid"] in ours for holder in payload["holders"])
        ]


def _open_files() -> int:
    """Return the number of open fds of this process, on Windows the number of section handles."""
    if sys.platform == "win32":
        from extmem.manager.windows.snapshot import own_handles

        return sum(type_name == "Section" for _, type_name, _ in own_handles())
    return len(os.listdir("/proc/self/fd"))


def _require_parts() -> None:
    missing = [
        package
        for module, package in (("numpy", "NumPy"), ("PIL", "Pillow"))
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise UnsupportedError(
            f"the demo needs {' and '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: "
            "pip install 'extmem[demo]'",
            requires_one_of=missing,
        )


@click.command(short_help="Share an animation between two processes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("demo.png"),
    show_default=True,
    help="File for the picture, a PNG file.",
)
@click.option(
    "--frames", type=click.IntRange(1, 512), default=64, show_default=True, help="Number of frames of the animation."
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object in place of the text.")
@guarded
def demo(out: Path, frames: int, as_json: bool) -> None:
    """Share an animation between two processes by name, check each frame, and check that nothing is left.

    Exit codes: 0 all checks passed; 1 a check failed; 2 wrong arguments; 130 interrupted (nothing is left then either).
    """
    if not out.parent.is_dir() or out.is_dir():
        raise click.BadParameter(
            f"{out} cannot be written: give the name of a file in a directory that exists", param_hint="--out"
        )
    if out.suffix.lower() != ".png":
        raise click.BadParameter(
            f"{str(out)!r} is not a name of a PNG file, which the demo writes: give a name that ends in .png",
            param_hint="--out",
        )
    _require_parts()
    from extmem.cli._worker import Worker
    from extmem.manager import manager

    began = time.monotonic()
    run = _Demo(frames, quiet=as_json)
    manager().snapshot()  # connects, and starts a broker if none runs, before the open files are counted
    state = manager().status()
    before = _open_files(), state.fds if state is not None else 0
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with closing(Worker("exporter", one_thread)) as exporter, closing(Worker("importer", one_thread)) as importer:
        run.share(exporter, importer)
        run.show_holders()
        run.refuse(importer)
        run.save(importer, out)
        run.part(exporter, importer)
    run.prove(*before)
    run.facts |= {"seconds": round(time.monotonic() - began, 2), "wrong": run.wrong, "ok": not run.wrong}
    if as_json:
        emit_json(run.facts)
    run.show(f"Done in {run.facts['seconds']} s.")
    if run.wrong:
        raise click.exceptions.Exit(FAILED)
