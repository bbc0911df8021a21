"""`extmem demo`: a channel carries an animation to two readers, its writer is killed, and each promise is checked."""

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
from extmem.cli._out import bytes_in_words, console, counted, emit_json, emit_line, words
from extmem.errors import NameNotFoundError, UnsupportedError

if TYPE_CHECKING:
    from extmem.cli._demo.events import Written
    from extmem.cli._worker import Worker

__all__ = ["demo"]

_WRITING, _READING = "extmem.cli._demo.writing", "extmem.cli._demo.reading"
_HEIGHT, _WIDTH = 270, 480
_SHOWN = 8
"""Frames of each reader in the picture, at most."""
_TAKES = 4
"""The slow reader uses a frame until so many newer ones have come."""
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Report the progress: by a live bar on a terminal, by some lines in a pipe."""
    if not sys.stderr.isatty():

        def line(done: int) -> None:
            if done % max(1, total // 4) == 0 or done == total:
                words(f"  {done} of {counted(total, 'frame')} published")

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
        self.facts: dict[str, Any] = {"name": self.name, "frames": frames, "shape": [_HEIGHT, _WIDTH, 4]}
        self.wrong: list[str] = []
        self._written: list[Written] = []
        self._results: list[dict[str, Any]] = []
        self._half: Written | None = None
        self._killed = 0
        self._parts = ""

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

    def begin(self, writer: Worker, fast: Worker, slow: Worker) -> None:
        """Create the channel, and let both readers open it."""
        device = writer.call(f"{_WRITING}:begin", self.name, _HEIGHT, _WIDTH)
        self.facts |= {"device": device, "writers": [writer.pid], "readers": [{"pid": fast.pid}, {"pid": slow.pid}]}
        self.show(f"Device: {device['name']}, UUID {device['uuid']}")
        if device["kind"] == "host":
            self.show("  (host memory in place of GPU memory; names, rights and channels are the same)")
        self.show(
            f"Process {writer.pid} creates the channel {self.name!r}: slots of {_HEIGHT} x {_WIDTH} x 4 uint8, "
            f"{bytes_in_words(device['slot'])} each."
        )
        for reader, every in ((fast, True), (slow, False)):
            reader.call(f"{_READING}:open_channel", self.name, every)
        self.show(f"Process {fast.pid}, the recorder, reads every frame, and the writer waits for it (reliable).")
        self.show(
            f"Process {slow.pid}, the viewer, reads the newest one, and is slow: {_TAKES} frames come while it shows "
            "one. Nobody waits for it."
        )

    def stream(self, writer: Worker, fast: Worker, slow: Worker) -> Worker:
        """Let the writer write, kill it in the middle of a frame, and start another. Return that one."""
        shown = sorted({1 + index * (self.frames - 1) // max(1, _SHOWN - 1) for index in range(_SHOWN)})
        fast.start(f"{_READING}:read", self.frames, 0, shown)
        slow.start(f"{_READING}:read", self.frames, _TAKES, [])
        half = self.frames // 2 + 1
        with _progress(self.frames) as progress:
            writer.start(f"{_WRITING}:write", self.frames, half)
            for one in writer.stream():
                if isinstance(one[0], str):
                    self._half = one[1]
                    break
                self._written.append(one)
                progress(one.number)
            self._killed = time.perf_counter_ns()
            writer.kill()
            self.show(f"Process {writer.pid} is killed (kill -9): half of frame {half} is written.")
            self.show_channel()
            successor = _worker("writer")
            try:
                found = successor.call(f"{_WRITING}:begin", self.name, _HEIGHT, _WIDTH)
                successor.start(f"{_WRITING}:write", self.frames, None)
                for one in successor.stream():
                    self._written.append(one)
                    progress(one.number)
            except BaseException:
                successor.close()
                raise
        resumed = next(one for one in self._written if one.writer == successor.pid)
        pause = (resumed.ended - self._killed) / 1e9
        self.facts["writers"].append(successor.pid)
        self.facts["killed"] = {"frame": half, "seconds": round(pause, 3)}
        self.expect(found["count"] == half - 1 and resumed.number == half, "the numbers of the frames do not go on")
        self.show(
            f"Process {successor.pid}, which was started then, takes the channel over: frame {resumed.number} comes "
            f"{pause:.2f} s after the kill."
        )
        return successor

    def show_channel(self) -> None:
        """Show the channel while it has no writer."""
        from extmem.cli._channels import describe_channel, look_at, print_channel
        from extmem.manager import manager

        look = look_at(self.name, manager().snapshot())
        self._parts = look.parts
        found = self.facts["channel"] = describe_channel(look)
        pids = {reader["pid"] for reader in found["readers"]}
        self.expect(pids == {reader["pid"] for reader in self.facts["readers"]}, f"the readers are said to be {pids}")
        self.expect(found["state"] == "gone", f"the writer that was killed is said to be {found['state']}")
        if not self.quiet:
            emit_line()
            print_channel(found, heading="The channel now (extmem channel):")
            emit_line()

    def check(self, fast: Worker, slow: Worker) -> None:
        """Compare what was read with what was written."""
        self._results = [reader.finish() for reader in (fast, slow)]
        for facts, result, mode in zip(self.facts["readers"], self._results, ("reliable", "newest"), strict=True):
            seen = result["seen"]
            numbers = [one.number for one in seen]
            torn = [one.number for one in seen if not one.whole]
            facts |= {"mode": mode, "read": len(seen), "skipped": result["lost"], "torn": len(torn)}
            who = f"process {facts['pid']}"
            self.expect(not torn, f"the frames {torn} that {who} read differ from their checksums")
            self.expect(numbers == sorted(set(numbers)), f"{who} got frames twice, or in a wrong order: {numbers}")
            self.expect(numbers[-1:] == [self.frames], f"{who} did not get the last frame")
            counted_all = numbers[0] - 1 + len(seen) + result["lost"] == self.frames
            self.expect(counted_all, f"{who} counts {result['lost']} frames as lost, and has read {len(seen)}")
            self.expect(not result["different"], f"frames {result['different']} differ from those that {who} draws")
        fast_facts, slow_facts = self.facts["readers"]
        self.expect(
            fast_facts["read"] == self.frames and not fast_facts["skipped"], "the reliable reader has lost frames"
        )
        writers = {one.number: one.writer for one in self._written}
        half = self.facts["killed"]["frame"]
        self.expect(
            all(one.writer == writers[one.number] for result in self._results for one in result["seen"])
            and writers[half] == self.facts["writers"][1],
            "a frame was read that nobody has published",
        )
        checked = fast_facts["read"] + slow_facts["read"]
        self.facts |= {"checked": checked, "redrawn": self._results[0]["redrawn"]}
        self.show(
            f"The recorder has read {fast_facts['read']} of {self.frames} frames; the viewer {slow_facts['read']}, and "
            f"{slow_facts['skipped']} are counted as skipped."
        )
        self.show(
            f"All {checked} checksums match, and frames {self.facts['redrawn']} equal those that the "
            "recorder draws itself. Nobody has seen the half of a frame."
        )

    def refuse(self, reader: Worker) -> None:
        """Let a reader try to write."""
        self.facts["refusals"] = reader.call(f"{_READING}:try_to_write", self.name)
        self.show("The recorder tries to write:")
        for refusal in self.facts["refusals"]:
            self.expect(bool(refusal["error"]), f"a reader was able to {refusal['attempt']}")
            self.show(f"  {refusal['attempt']}: refused by {refusal['by']}")
            self.show(f"    {refusal['error'].splitlines()[0] if refusal['error'] else '(allowed)'}")

    def save(self, out: Path) -> None:
        """Save the picture of the run."""
        from extmem.cli._demo.picture import draw

        out.write_bytes(draw(self.facts, self._written, self._half, self._killed, self._results))
        self.facts["picture"] = str(out)
        self.show(f"Saved {out}: who wrote and read which frame when, and frames as the readers saw them.")

    def part(self, writer: Worker, readers: list[Worker]) -> None:
        """Close the channel on all sides."""
        writer.call(f"{_WRITING}:end")
        writer.leave()
        for reader in readers:
            reader.call(f"{_READING}:end")
            reader.leave()

    def prove(self, descriptors: int, broker_before: int) -> None:
        """Check that no payload, no name and no fd is left."""
        import extmem
        from extmem.manager import manager

        deadline = time.monotonic() + 5  # the broker detects the end of a process a moment later
        while (left := self._ours()) and time.monotonic() < deadline:
            time.sleep(0.01)
        try:
            extmem.open_channel(self.name).close()
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

        ours = {*self.facts["writers"], *(reader["pid"] for reader in self.facts["readers"])}
        return [
            payload
            for payload in live_payloads() or []
            if any(name == self.name or name.startswith(self._parts) for name in payload["names"])
            or any(holder["pid"] in ours for holder in payload["holders"])
        ]


def _worker(title: str) -> Worker:
    """Start a worker whose NumPy uses one thread."""
    from extmem.cli._worker import Worker

    return Worker(title, _ONE_THREAD)


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


@click.command(short_help="Stream an animation to two readers while its writer is killed.")
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
    """Stream an animation through a channel to two readers, one of them slow, and kill the writer in the middle of a
    frame. Another one takes the channel over. Check each frame, and that nothing is left; draw a picture of the run.

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
    from extmem.manager import manager

    began = time.monotonic()
    run = _Demo(frames, quiet=as_json)
    manager().snapshot()  # connects, and starts a broker if none runs, before the open files are counted
    state = manager().status()
    before = _open_files(), state.fds if state is not None else 0
    with (
        closing(_worker("writer")) as writer,
        closing(_worker("recorder")) as fast,
        closing(_worker("viewer")) as slow,
    ):
        run.begin(writer, fast, slow)
        with closing(run.stream(writer, fast, slow)) as successor:
            run.check(fast, slow)
            run.refuse(fast)
            run.save(out)
            run.part(successor, [fast, slow])
    run.prove(*before)
    run.facts |= {"seconds": round(time.monotonic() - began, 2), "wrong": run.wrong, "ok": not run.wrong}
    if as_json:
        emit_json(run.facts)
    run.show(f"Done in {run.facts['seconds']} s.")
    if run.wrong:
        raise click.exceptions.Exit(FAILED)
