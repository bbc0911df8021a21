"""A broken rule, with the field, the problem and the remedy."""

from __future__ import annotations

import msgspec

from extmem.forks import no_fork

__all__ = ["OWN", "SPEC_URL", "Violation", "link_to"]

SPEC_URL = "https://registry.khronos.org/vulkan/specs/latest/html/vkspec.html"


OWN = "EXTMEM-"
"""How the id of a rule begins that the specification states without an id: `EXTMEM-command-parameter-word`."""


def link_to(vuid: str) -> str:
    """Return the address of the rule in the specification; of the command or struct, for a rule without an id."""
    return f"{SPEC_URL}#{vuid.split('-')[1] if vuid.startswith(OWN) else vuid}"


class Violation(msgspec.Struct, frozen=True):
    """One rule that a call breaks. Equal when all four fields are equal."""

    vuid: str
    """The rule's id, `VUID-…`; `EXTMEM-…` for a rule that the specification states without an id."""
    where: str
    """Dotted path of the field at fault, such as `MemoryAllocateInfo.pNext<ImportMemoryFdInfoKHR>.fd`."""
    problem: str
    """What is wrong, with the actual values."""
    remedy: str
    """What to do instead."""

    @property
    def link(self) -> str:
        """Address of the rule in the specification."""
        return link_to(self.vuid)

    @property
    def rule(self) -> str:
        """The rule in one sentence, from the ledger; empty for an id that the ledger does not contain."""
        with no_fork():
            from extmem.rules import ledger  # imported late, because it is read from a file

        try:
            return ledger.find(self.vuid).rule
        except LookupError:
            return ""

    def to_dict(self) -> dict[str, str]:
        """Return all six values under fixed keys; every key is always present."""
        return {
            "vuid": self.vuid,
            "where": self.where,
            "problem": self.problem,
            "remedy": self.remedy,
            "rule": self.rule,
            "link": self.link,
        }
