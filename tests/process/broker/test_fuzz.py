"""The fuzzer itself, for a moment: `make soak` runs it for long."""

from __future__ import annotations

from fuzz import fuzz_wire


def test_a_short_fuzz_leaves_nothing_and_disturbs_nobody() -> None:
    told = fuzz_wire.main(600, seed=3)
    assert told["left"] == {"payloads": 0, "holders": 0, "fds": 0}
    replies = told["replies"]
    assert {"Refusal", "Fault", "Welcome", "Exported", "Value"} <= set(replies), "it hardly tried anything"
