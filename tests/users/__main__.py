"""Other users for a long time: `python -m tests.users`. Text on stderr, figures on stdout as one JSON object.

It repeats the rounds of `rounds` until the number of attempts is reached. The exit code is 0 where no attempt got
anything, the owners' payloads are unchanged, and no broker ended. It requires root, to become another user.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

from tests.users import rounds


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.users", description="Try to get what is another user's.")
    parser.add_argument("--attempts", type=int, default=1_000, help="how many")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if os.geteuid():
        parser.error("it takes root to become another user; run it as root")
    found, number = rounds.Findings(), 0
    while found.attempts < options.attempts:
        found += rounds.run(f"{options.seed}/{number}")
        number += 1
    figures = {
        "attempts": found.attempts,
        "escalations": len(found.escalations),
        "wrong": len(found.wrong),
        "broker ended": len(found.ended),
    }
    problems = found.escalations + found.wrong + found.ended
    for thing in problems[:40]:
        sys.stderr.write(f"{thing}\n")
    sys.stdout.write(json.dumps(figures) + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
