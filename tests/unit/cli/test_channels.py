"""`extmem channels` and `extmem channel` on channels of this process, and how the numbers become text. Pure, mostly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result

import extmem
from extmem.channel.info import ChannelInfo, HeldFrame, ReaderInfo, rate_of
from extmem.cli import channel as one_channel
from extmem.cli._app import app
from extmem.cli._channels import (
    ChannelLook,
    contents_in_words,
    describe_channel,
    line_in_words,
    seconds_in_words,
    slowest_in_words,
    state_in_words,
)
from extmem.cli._watching import Watch, as_line


def reader(place: int = 0, *, behind: int = 0, lost: int = 0, held: tuple[HeldFrame, ...] = ()) -> ReaderInfo:
    return ReaderInfo(place, 100 + place, False, False, 50 - behind, behind, lost, 1, held)


def described(*readers: ReaderInfo, state: str = "alive", count: int = 50, dropped: int = 0) -> dict[str, Any]:
    info = ChannelInfo("feed", 99, state, 1, 4, 64, count, 0.02, dropped, 64, 8, readers, 60.0)
    return describe_channel(ChannelLook(info, ((None, (2, 3), "uint8"),), 6, "GPU", "parts"), lambda pid: f"p{pid}")


def run(*arguments: str, code: int = 0, **environment: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), env=environment)
    assert result.exit_code == code, (result.stdout, result.stderr)
    return result


# pure


def test_the_rate_is_that_of_the_frames_in_the_ring() -> None:
    frames = [(number, number * 10_000_000) for number in (7, 5, 6, 8)]
    assert rate_of(frames, 80_000_000) == pytest.approx(100)
    assert rate_of(frames, 85_000_000) == pytest.approx(100), "the next frame is not late yet"
    assert rate_of(frames, 350_000_000) == pytest.approx(3 / 0.29), "it is late, and the rate falls"


@pytest.mark.parametrize("frames", [[], [(1, 5)], [(1, 5), (2, 5)], [(1, 9), (2, 5)]])
def test_there_is_no_rate_without_two_times(frames: list[tuple[int, int]]) -> None:
    assert rate_of(frames, 100) is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0003, "0.3 ms"), (0.042, "42 ms"), (1, "1.0 s"), (59.96, "60.0 s"), (700, "12 min")]
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert seconds_in_words(seconds) == text


@pytest.mark.parametrize(("behind", "slow"), [(0, False), (2, False), (3, True), (40, True)])
def test_a_reader_is_slow_that_is_as_far_behind_as_the_ring_is_long(behind: int, slow: bool) -> None:
    channel = described(reader(behind=behind))
    assert channel["readers"][0]["slow"] is slow
    assert bool(slowest_in_words(channel)) is (behind > 0)
    assert ("overwritten before it reads them" in slowest_in_words(channel)) is slow


def test_for_a_slow_reliable_reader_the_writer_waits() -> None:
    one = ReaderInfo(0, 7, True, True, 46, 4, 0, 1, ())
    assert "the writer does not overwrite what it has not read" in slowest_in_words(described(one))


@pytest.mark.parametrize(
    ("state", "text"), [("alive", ""), ("closed", "readers get what is published"), ("gone", "start it again")]
)
def test_a_writer_that_has_ended_is_told_with_the_remedy(state: str, text: str) -> None:
    said = state_in_words(described(state=state))
    assert (said == "") if not text else text in said


def test_the_line_for_a_pipe_names_the_slowest_and_what_it_holds() -> None:
    line = line_in_words(
        described(
            reader(0), reader(1, behind=9, lost=4, held=(HeldFrame(41, 2, 0.5), HeldFrame(40, 1, 1.5))), dropped=3
        )
    )
    for part in ("frame 50", "60.0 per s", "2 readers", "3 dropped", "4 lost", "slowest 101 p101: 9 behind, slow"):
        assert part in line
    assert line.endswith("holds frame 40 for 1.5 s")


def test_two_looks_give_the_rates_of_readers_and_show_who_loses_frames() -> None:
    watch = Watch()
    first = watch.update(described(reader(0), reader(1, behind=2)), 10.0)
    assert [one["reads_per_second"] for one in first["readers"]] == [None, None]
    before = described(reader(0), reader(1, behind=2))
    later = described(reader(0), reader(1, behind=2, lost=10), reader(2), count=90)
    for one in later["readers"]:
        one["cursor"] += 40
    assert before["frames"] == 50
    second = watch.update(later, 12.0)
    fast, slow, new = second["readers"]
    assert second["rate"] == pytest.approx(20)
    assert (fast["reads_per_second"], fast["lost_per_second"], fast["slow"]) == (20, 0, False)
    assert (slow["reads_per_second"], slow["lost_per_second"], slow["slow"]) == (15, 5, True)
    assert new["reads_per_second"] is None


def test_numbers_that_go_back_give_no_rate() -> None:
    """Of another channel, or another reader in the same place."""
    watch = Watch()
    watch.update(described(reader(0, lost=5)), 1.0)
    assert watch.update(described(reader(0, lost=0), count=60), 2.0)["readers"][0]["reads_per_second"] is None
    assert watch.update(described(count=10), 3.0)["rate"] == 60.0, "that of the ring"


def test_a_line_as_json_is_the_look() -> None:
    assert json.loads(as_line(described(), as_json=True))["frames"] == 50


def test_frames_of_unknown_contents_have_a_question_mark() -> None:
    assert contents_in_words({"arrays": []}) == "?"
    assert contents_in_words({"arrays": [{"name": "a\x1b", "shape": [], "dtype": "uint8"}]}) == r"a\x1b: one uint8"


# on channels


@pytest.fixture
def camera() -> Iterator[extmem.ChannelWriter]:
    with extmem.create_channel("cli/\x1b[2Jcamera", (4, 6), "uint8") as channel:
        yield channel


def test_channels_lists_them_and_channel_shows_one(camera: extmem.ChannelWriter) -> None:
    with (
        extmem.open_channel(camera.name, every=True) as reader,
        extmem.create_channel("cli/many", {"depth": ((2,), "float32"), "color": ((2, 4), "uint8")}),
    ):
        for _ in range(6):
            camera.write().publish()
        frame = reader.read()
        found = {one["name"]: one for one in json.loads(run("channels", "--json").stdout)}
        one = found[camera.name]
        assert (one["frames"], one["slots"], one["slot_size"], one["state"]) == (6, 4, 24, "alive")
        assert one["device"].startswith("extmem host memory")
        assert one["arrays"] == [{"name": None, "shape": [4, 6], "dtype": "uint8"}]
        assert {array["name"] for array in found["cli/many"]["arrays"]} == {"depth", "color"}
        (shown,) = one["readers"]
        assert shown["mode"] == "every" and shown["behind"] == 6 - frame.number and shown["slow"]
        assert [held["frame"] for held in shown["held"]] == [frame.number]
        assert one["slowest"] == one["writer"] == shown["pid"]
        for columns in ("200", "30"):
            table = run("channels", COLUMNS=columns)
            assert r"cli/\x1b[2Jcamera" in table.stdout and "\x1b" not in table.stdout
            assert "2 channels, read by 1 reader." in table.stderr
            text = run("channel", camera.name, COLUMNS=columns)
            assert "\x1b" not in text.stdout and f"frame {frame.number} in slot" in text.stdout
            assert "slowest reader" in " ".join(text.stdout.split())
        assert json.loads(run("channel", camera.name, "--json").stdout)["readers"][0]["place"] == shown["place"]


def test_a_name_of_nothing_and_one_of_something_else_are_told(camera: extmem.ChannelWriter) -> None:
    missing = run("channel", "cli/\x1b[2Jcamra", code=1)
    assert r"Did you mean cli/\x1b[2Jcamera?" in missing.stderr and missing.stdout == ""
    assert "`extmem channels` lists those" in run("channel", "nothing like it", "--watch", code=1).stderr
    with extmem.open_device(kind="host") as device, device.allocate(4, name="cli memory"):
        refused = run("channel", "cli memory", code=1)
    assert "error: ObjectTypeError" in refused.stderr and "extmem.open" in refused.stderr
    assert "NameInvalidError" in run("channel", "a@b", code=1).stderr


def test_names_of_channels_are_completed(camera: extmem.ChannelWriter) -> None:
    with extmem.create_channel("cli/plain", 4):
        for words, expected in (("extmem channel cli/pl", "plain,cli/plain\n"), ("extmem channel other", "")):
            variables = {"COMP_WORDS": words, "COMP_CWORD": "2", "_EXTMEM_COMPLETE": "bash_complete"}
            assert CliRunner().invoke(app, [], prog_name="extmem", env=variables).stdout.strip() == expected.strip()
        variables["COMP_WORDS"] = "extmem channel cli/"
        shown = CliRunner().invoke(app, [], prog_name="extmem", env=variables).stdout
        assert shown == "plain,cli/plain\n", "a name that would be read as another line or as a control is left out"


def test_watching_ends_with_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_channel, "_GRACE", 0.0)
    channel = extmem.create_channel("cli/ending", (4, 6))
    with extmem.open_channel("cli/ending"):
        looks = one_channel._looks("cli/ending", 0.1)
        channel.write().publish()
        assert next(looks)["state"] == "alive"
        channel.close()
        assert next(looks)["state"] == "closed"
    assert list(looks) == []
    assert list(one_channel._looks("cli/ending", 0.1)) == []


def test_a_channel_that_cannot_be_read_is_told_and_the_others_are_listed(
    camera: extmem.ChannelWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    from extmem.cli import _channels

    look = _channels.look_at

    def corrupt(name: str, rows: Any) -> ChannelLook:
        if name == "cli/broken":
            raise extmem.ChannelCorruptError("the control page is wrong\nRestart the writer")
        return look(name, rows)

    monkeypatch.setattr(_channels, "look_at", corrupt)
    with extmem.create_channel("cli/broken", 4):
        done = run("channels", "--json", code=1)
    assert [one["name"] for one in json.loads(done.stdout)] == [camera.name]
    assert "'cli/broken' could not be read" in done.stderr and "error: ChannelCorruptError" in done.stderr


def test_an_interval_is_for_watching() -> None:
    assert "an interval is for --watch" in run("channel", "x", "--interval", "2", code=2).stderr
