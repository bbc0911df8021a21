"""What the errors of channels say: the facts, and a remedy that helps."""

from __future__ import annotations

import pytest

import extmem
from extmem import HandleStateError, NameNotFoundError
from extmem.channel import names
from extmem.errors import NameInvalidError, OutOfMemoryError, QuotaError


def test_a_name_without_a_channel_needs_a_writer(name: str) -> None:
    with pytest.raises(
        NameNotFoundError, match=rf"no channel is named '{name}': start its writer .*open_channel"
    ):
        extmem.open_channel(name)
    with pytest.raises(NameNotFoundError, match="No live object is named"):  # memory is exported
        extmem.open(name)


@pytest.mark.parametrize("prefix", ["extmem.channel.", "Extmem.Channel."])
def test_the_names_of_parts_are_not_those_of_channels(name: str, prefix: str) -> None:
    for make in (lambda: extmem.create_channel(prefix + name, 8), lambda: extmem.open_channel(prefix + name)):
        with pytest.raises(NameInvalidError, match="names of the parts of channels.*Choose another name"):
            make()
    assert names.checked(f"extmem.{name}") == f"extmem.{name}"


def test_more_readers_than_a_channel_can_have_are_not_advised(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with extmem.create_channel(name, 8, max_readers=2, max_reliable=1) as writer, extmem.open_channel(name):
        with extmem.open_channel(name, every=True, reliable=True):
            with pytest.raises(QuotaError, match="2 readers, and its writer allows no more.*greater max_readers"):
                extmem.open_channel(name)
            with pytest.raises(QuotaError, match="1 reliable readers, .*greater max_reliable"):
                extmem.open_channel(name, every=True, reliable=True)
            monkeypatch.setattr("extmem.channel.functions.READERS_LIMIT", 2)
            with pytest.raises(QuotaError, match=r"2 readers, as many as a channel can have\. Close one\."):
                extmem.open_channel(name)
        assert len(writer.info.readers) == 1


@pytest.mark.parametrize(("most", "advice"), [(2, "max_held=3$"), (32, "or copy it$")])
def test_the_advice_about_kept_frames_stays_within_the_limit(name: str, most: int, advice: str) -> None:
    with extmem.create_channel(name, 8, slots=most + 2) as writer:
        with extmem.open_channel(name, every=True, max_held=most) as reader:
            kept = []
            for _ in range(most):
                writer.write().publish()
                kept.append(reader.read(timeout=5).hold())
            writer.write().publish()
            with pytest.raises(HandleStateError, match=advice):
                reader.read(timeout=5)
            for frame in kept:
                frame.release()
            assert reader.read(timeout=5).number == most + 1


@pytest.mark.parametrize("shape", [1 << 50, {"a": (1 << 46,), "b": (4,)}])
def test_a_slot_that_is_larger_than_all_memory_is_out_of_memory(name: str, shape: object) -> None:
    with pytest.raises(OutOfMemoryError, match=r"slot 0 .* exceed the heap .* give a smaller shape"):
        extmem.create_channel(name, shape)  # type: ignore[arg-type]
    with extmem.create_channel(name, 8) as writer:
        assert writer.slots == 4
