"""Explanations of rules and errors, with a wrong and a right example. Plain data; the command line prints it."""

from __future__ import annotations

import difflib
import re
from typing import Literal

import msgspec

from extmem.rules import ledger
from extmem.rules._error_texts import CLASSES, RESULTS, STATUSES
from extmem.rules._examples_fd_host import FD, HOST
from extmem.rules._examples_submit import SUBMIT
from extmem.rules._examples_sync import SYNC
from extmem.rules._examples_win32 import WIN32
from extmem.rules.violation import OWN, link_to

__all__ = ["Explanation", "explain", "topics"]

EXAMPLES: dict[str, tuple[str, str]] = {**WIN32, **FD, **HOST, **SUBMIT, **SYNC}
_RESULT_LINK = "https://registry.khronos.org/vulkan/specs/latest/man/html/VkResult.html"
_STATUS_LINK = "https://learn.microsoft.com/windows/win32/debug/system-error-codes"


class Explanation(msgspec.Struct, frozen=True):
    """The explanation of a rule or an error. Fields that do not apply are empty."""

    title: str
    """The rule's id, or the error's name and number."""
    kind: Literal["rule", "error", "VkResult", "NTSTATUS", "Win32 error"]
    text: str
    """The explanation; paragraphs are separated by blank lines."""
    wrong_example: str
    """Python code that breaks the rule or raises the error; empty if there is none."""
    right_example: str
    link: str
    status: str = ""
    """Status of a rule in the ledger."""
    family: str = ""
    checked_by: str = ""
    aliases: tuple[str, ...] = ()
    """Other names for which `explain` returns this."""

    def to_dict(self) -> dict[str, object]:
        """Return plain values under fixed keys; every key is always present."""
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


_FACTS_FROM = {
    "structs": "it depends on the structs of the call alone.",
    "tracked state": "extmem tracks the earlier calls of the program.",
    "device query": "the facts come from queries of the device.",
    "descriptor": "the payload's descriptor contains how the exporter created it.",
    "object manager": "the object manager resolves the handle or name.",
}


def _rule(row: ledger.Row) -> Explanation:
    wrong, right = EXAMPLES.get(row.vuid, ("", ""))
    if row.status == "checked":
        checked = f"extmem checks this before it calls the device: {_FACTS_FROM[row.checked_by]}"
    elif row.status == "on request":
        checked = f"No call of extmem can break it. {row.reason}"
    else:
        checked = f"extmem does not check this ({row.status}): {row.reason}"
    parts = [row.rule, f"It is a rule of {row.struct}. {checked}"]
    if row.implicit:
        parts.append("It follows from the registry: the types, pointers and chains that are valid for the call.")
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
    error = CLASSES[name]
    return Explanation(name, "error", error.text, error.wrong, error.right, "")


def _result(name: str) -> Explanation:
    result = RESULTS[name]
    error = CLASSES[result.raised_as]
    text = f"{result.text}\n\nextmem raises it as {result.raised_as}, or a subclass of it. {error.text}"
    return Explanation(f"{name} ({result.code})", "VkResult", text, error.wrong, error.right, _RESULT_LINK)


def _status(name: str) -> Explanation:
    status = STATUSES[name]
    error = CLASSES[status.raised_as]
    text = (
        f"{status.text}\n\nextmem raises it as {status.raised_as}; its `winerror` is {status.winerror} "
        f"({status.win32_name}). {error.text}"
    )
    title = f"{name} (0x{status.code:08X})"
    return Explanation(title, "NTSTATUS", text, error.wrong, error.right, _STATUS_LINK, aliases=(status.win32_name,))


def _winerror(code: int) -> Explanation:
    names = [name for name, status in STATUSES.items() if status.winerror == code]
    first = STATUSES[names[0]]
    error = CLASSES[first.raised_as]
    lines = [f"- {name}: {STATUSES[name].text} Raised as {STATUSES[name].raised_as}." for name in names]
    text = "\n".join(["The Win32 error code of:", "", *lines])
    if len(names) == 1:
        text += f"\n\n{error.text}"
    title = f"{first.win32_name} ({code})"
    return Explanation(title, "Win32 error", text, error.wrong, error.right, _STATUS_LINK, aliases=tuple(names))


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
    """Return the name of everything that `explain` can explain."""
    win32 = dict.fromkeys(status.win32_name for status in STATUSES.values())
    return [*(row.vuid for row in ledger.rows()), *CLASSES, *RESULTS, *STATUSES, *win32]


def explain(what: str) -> Explanation:
    """Explain a rule (any form of its id) or an error (class, VkResult, NTSTATUS or Win32 name, or its number).

    Raises:
        LookupError: there is no rule or error of that name; the message contains similar names.
    """
    key = what.strip()
    explanation = _named(key)
    if explanation is not None:
        return explanation
    if re.fullmatch(r"-?\d{1,4}|-?\d{6,10}|0[xX][0-9a-fA-F]+", key):
        explanation = _numbered(int(key, 0) if key[:2] in ("0x", "0X") else int(key))
        if explanation is not None:
            return explanation
    try:
        return _rule(ledger.find(key))
    except LookupError as missing:
        if "rules end in" in str(missing) or key.startswith(("VUID-", OWN, "Vk", "vk")):
            raise
    near = difflib.get_close_matches(key.upper(), [*RESULTS, *STATUSES, *(s.win32_name for s in STATUSES.values())], 3)
    near += [name for name in CLASSES if difflib.SequenceMatcher(None, name.casefold(), key.casefold()).ratio() > 0.6]
    near += ledger.near_misses(key, 2)
    hint = (
        f" Did you mean {', '.join(dict.fromkeys(near))}?" if near else " Give a VUID, an error's name or its number."
    )
    raise LookupError(f"no rule or error has the name {what!r}.{hint}")
