"""Rules and errors in plain words, with a wrong and a right example. Pure data; printing is the command line's."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Literal

from extmem.rules import ledger
from extmem.rules._error_texts import CLASSES, RESULTS, STATUSES
from extmem.rules._examples_fd_host import FD, HOST
from extmem.rules._examples_win32 import WIN32
from extmem.rules.violation import link_to

__all__ = ["Explanation", "explain", "topics"]

EXAMPLES: dict[str, tuple[str, str]] = {**WIN32, **FD, **HOST}
_RESULT_LINK = "https://registry.khronos.org/vulkan/specs/latest/man/html/VkResult.html"
_STATUS_LINK = "https://learn.microsoft.com/windows/win32/debug/system-error-codes"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `extmem explain` has to say. Fields that do not apply are empty, never missing."""

    title: str
    """The rule's id, or the error's name and number."""
    kind: Literal["rule", "error", "VkResult", "NTSTATUS", "Win32 error"]
    text: str
    """Plain words, paragraphs separated by blank lines."""
    wrong_example: str
    """Python that breaks the rule or gets the error; empty where there is none to show."""
    right_example: str
    link: str
    status: str = ""
    """A rule's status in the ledger."""
    family: str = ""
    checked_by: str = ""
    aliases: tuple[str, ...] = ()
    """Other names that lead here."""

    def to_dict(self) -> dict[str, object]:
        """Plain values under fixed keys; every key is always there."""
        return {
            "title": self.title,
            "kind": self.kind,
            "text": self.text,
            "wrong_example": self.wrong_example,
            "right_example": self.right_example,
            "link": self.link,
            "status": self.status,
            "family": self.family,
            "checked_by": self.checked_by,
            "aliases": list(self.aliases),
        }


_KNOWS = {
    "structs": "the structs of the call alone decide it.",
    "tracked state": "extmem knows what the program did before.",
    "device query": "the device was asked.",
    "descriptor": "the payload's descriptor tells what the exporter did.",
    "object manager": "the object manager is asked where the handle or name leads.",
}


def _rule(row: ledger.Row) -> Explanation:
    wrong, right = EXAMPLES.get(row.vuid, ("", ""))
    if row.status == "checked":
        told = f"extmem checks this before the device sees the call: {_KNOWS[row.checked_by]}"
    elif row.status == "on request":
        told = f"No call of extmem leads to this. {row.reason}"
    else:
        told = f"extmem does not check this ({row.status}): {row.reason}"
    parts = [row.rule, f"It is a rule of {row.struct}. {told}"]
    if row.implicit:
        parts.append("It follows from the registry: types, pointers and chains that the call may have.")
    return Explanation(
        row.vuid,
        "rule",
        "\n\n".join(parts),
        wrong,
        right,
        link_to(row.vuid),
        row.status,
        row.family,
        row.checked_by,
        row.aliases,
    )


def _error(name: str) -> Explanation:
    words = CLASSES[name]
    return Explanation(name, "error", words.text, words.wrong, words.right, "")


def _result(name: str) -> Explanation:
    result = RESULTS[name]
    words = CLASSES[result.raised_as]
    text = f"{result.text}\n\nextmem raises it as {result.raised_as}, or a class below that. {words.text}"
    return Explanation(f"{name} ({result.code})", "VkResult", text, words.wrong, words.right, _RESULT_LINK)


def _status(name: str) -> Explanation:
    status = STATUSES[name]
    words = CLASSES[status.raised_as]
    text = (
        f"{status.text}\n\nextmem raises it as {status.raised_as}; its `winerror` is {status.winerror} "
        f"({status.win32_name}). {words.text}"
    )
    title = f"{name} (0x{status.code:08X})"
    return Explanation(title, "NTSTATUS", text, words.wrong, words.right, _STATUS_LINK, aliases=(status.win32_name,))


def _winerror(code: int) -> Explanation:
    names = [name for name, status in STATUSES.items() if status.winerror == code]
    first = STATUSES[names[0]]
    words = CLASSES[first.raised_as]
    lines = [f"- {name}: {STATUSES[name].text} Raised as {STATUSES[name].raised_as}." for name in names]
    text = "\n".join(["The Win32 error code behind:", "", *lines])
    if len(names) == 1:
        text += f"\n\n{words.text}"
    title = f"{first.win32_name} ({code})"
    return Explanation(title, "Win32 error", text, words.wrong, words.right, _STATUS_LINK, aliases=tuple(names))


def _named(key: str) -> Explanation | None:
    upper = key.upper()
    for prefix in ("", "VK_", "VK_ERROR_"):
        if prefix + upper in RESULTS:
            return _result(prefix + upper)
    for prefix in ("", "STATUS_"):
        if prefix + upper in STATUSES:
            return _status(prefix + upper)
    for status in STATUSES.values():
        if status.win32_name == upper:
            return _winerror(status.winerror)
    bare = key.removeprefix("extmem.").removeprefix("errors.")
    for name in CLASSES:
        if name.casefold() == bare.casefold():
            return _error(name)
    return None


def _numbered(number: int) -> Explanation | None:
    for name, result in RESULTS.items():
        if result.code == number:
            return _result(name)
    for name, status in STATUSES.items():
        if number in (status.code, status.code - 2**32):
            return _status(name)
    if any(status.winerror == number for status in STATUSES.values()):
        return _winerror(number)
    return None


def topics() -> list[str]:
    """Everything that `explain` has words for, by its first name."""
    win32 = dict.fromkeys(status.win32_name for status in STATUSES.values())
    return [*(row.vuid for row in ledger.rows()), *CLASSES, *RESULTS, *STATUSES, *win32]


def explain(what: str) -> Explanation:
    """Explain a rule (any form of its id) or an error (class, VkResult, NTSTATUS or Win32 name, or its number).

    Raises:
        LookupError: nothing goes by that name; the message names what looks like it.
    """
    key = what.strip()
    found = _named(key)
    if found is not None:
        return found
    if re.fullmatch(r"-?\d{1,4}|-?\d{6,10}|0[xX][0-9a-fA-F]+", key):
        found = _numbered(int(key, 0) if key[:2] in ("0x", "0X") else int(key))
        if found is not None:
            return found
    try:
        return _rule(ledger.find(key))
    except LookupError as missing:
        if "rules end in" in str(missing) or key.startswith(("VUID-", "Vk", "vk")):
            raise
    near = difflib.get_close_matches(key.upper(), [*RESULTS, *STATUSES, *(s.win32_name for s in STATUSES.values())], 3)
    near += [name for name in CLASSES if difflib.SequenceMatcher(None, name.casefold(), key.casefold()).ratio() > 0.6]
    near += ledger.near_misses(key, 2)
    hint = (
        f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else " Give a VUID, an error's name or its number."
    )
    raise LookupError(f"nothing is known of {what!r}.{hint}")
