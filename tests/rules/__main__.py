"""Rewrite the committed files that rule tests are compared with; nothing else writes them.

`python -m tests.rules messages` writes expected_messages.txt, `python -m tests.rules ledger` the `tests` column of
src/extmem/rules/ledger.json. Look at the diff before you commit it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.rules import messages, names

LEDGER = Path(__file__).parents[2] / "src" / "extmem" / "rules" / "ledger.json"


def write_messages() -> None:
    messages.EXPECTED.write_text(messages.text(), encoding="utf-8")


def write_ledger() -> None:
    found = names.rule_tests()
    rows = json.loads(LEDGER.read_text(encoding="utf-8"))
    for row in rows:
        row["tests"] = found.get(row["vuid"], [])
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    LEDGER.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


COMMANDS = {"messages": write_messages, "ledger": write_ledger}

if len(sys.argv) != 2 or sys.argv[1] not in COMMANDS:
    sys.exit(f"usage: python -m tests.rules {'|'.join(COMMANDS)}")
COMMANDS[sys.argv[1]]()
