"""A short run of the fuzzer: `make soak` runs it for a long time."""

from __future__ import annotations

from fuzz import fuzz_wire


def test_a_short_fuzz_leaves_nothing_and_disturbs_nobody() -> None:
    result = fuzz_wire.main(600, seed=3)
    assert result["left"] == {"payloads": 0, "holders": 0, "fds": 0}
    replies = result["replies"]
    tried = {"Refusal", "Fault", "Welcome", "Exported", "Value", "Awaited", "NamesPage"}
    assert tried <= set(replies), "it hardly tried anything"
