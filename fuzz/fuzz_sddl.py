"""Invariant: any text either parses, and then its formatted form parses to an equal security descriptor, or is refused
with a defined status, a position and a full sentence; no other error is raised, and no text takes more than 0.25 s.

Run `python -m fuzz.fuzz_sddl --iterations 100000`. Runs with the same seed are equal.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from extmem.objects import MEMORY, Refused, Status, Token, format_sddl, parse_sddl

TOKEN = Token(1000, 1000, frozenset({27}))
STATUSES = {Status.INVALID_SECURITY_DESCR, Status.UNKNOWN_REVISION, Status.INVALID_OWNER}
PIECES = (
    *("O:", "G:", "D:", "S:", "P", "AI", "AR", "NO_ACCESS_CONTROL", "(", ")", ";", ";;", ";;;", "A", "D", "AU"),
    *("OI", "CI", "NP", "IO", "ID", "GA", "GR", "GW", "GX", "RC", "SD", "WD", "WO", "CC", "DC", "FA", "OW", "BA"),
    *("S-1-1-0", "S-1-3-4", "S-1-22-1-1000", "S-1-22-2-27", "S-1-22-1-4294967295", "S-2-1-0", "S-1", "S-1-" + "9" * 40),
    *("0x1", "0x1FFFFF", "0xFFFFFFFF1", "131073", "010", "-1", " ", "\0", "é", "\ud800", "٣"),
)
SEEDS = (
    "D:(A;;GA;;;WD)",
    "O:S-1-22-1-1000G:S-1-22-2-1000D:PAI(A;OICI;GRGW;;;S-1-22-2-27)(D;IO;0x1;;;OW)",
    "D:NO_ACCESS_CONTROL",
    "D:",
)
SLOWEST = 0.25  # seconds of processor time of this thread, so that a busy machine does not count


def make(rng: random.Random) -> str:
    """Return a text: random pieces, or a valid text with a few changes."""
    if rng.random() < 0.5:
        return "".join(rng.choices(PIECES, k=rng.randrange(1, 24)))
    text = rng.choice(SEEDS) * rng.choice((1, 1, 1, 2, 200))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(text) + 1)
        cut = rng.randrange(4)
        text = text[:at] + rng.choice(("", rng.choice(PIECES), chr(rng.randrange(1, 0x300)))) + text[at + cut :]
    return text


def check(text: str) -> bool:
    """Check the invariant for one text. Return whether the text was parsed."""
    try:
        sd = parse_sddl(text, TOKEN, MEMORY)
    except Refused as refusal:
        assert refusal.status in STATUSES, refusal
        assert refusal.detail.endswith("."), refusal
        assert "position" in refusal.detail or "characters" in refusal.detail, refusal
        return False
    again = parse_sddl(format_sddl(sd, MEMORY), TOKEN, MEMORY)
    assert again == sd, (text, sd, again)
    return True


def main(iterations: int, seed: int = 1) -> dict[str, int]:
    """Run the fuzzer. Return the numbers of parsed and refused texts. Errors: AssertionError with the text."""
    rng = random.Random(seed)
    counts = {"parsed": 0, "refused": 0}
    for _ in range(iterations):
        text = make(rng)
        start = time.thread_time()
        try:
            counts["parsed" if check(text) else "refused"] += 1
        except Exception as error:
            raise AssertionError(f"broken by {text!r}: {error!r}") from error
        assert time.thread_time() - start < SLOWEST, f"slow: {text!r}"
    return counts


def run(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--iterations", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    counts = main(options.iterations, options.seed)
    parsed, refused = counts["parsed"], counts["refused"]
    print(f"fuzz_sddl: {options.iterations} texts, {parsed} parsed, {refused} refused, seed {options.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(run())
