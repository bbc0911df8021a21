"""Names of shared objects: from the name that a program states to its entry in the object directory (B1–B8).

How this works. Every session has a directory, `\\Sessions\\<n>\\BaseNamedObjects`; session 0's is the global one,
`\\BaseNamedObjects`. Each contains three links, Global, Local and Session, so a prefix is not special syntax but one
step of an ordinary walk: `Local\\Global\\X` works and means `\\BaseNamedObjects\\X`. There are no other directories, so
any other component before the last is a path that does not exist. Case is kept for display and folded for lookup (B5).
"""

from __future__ import annotations

from typing import Final

import msgspec

from extmem.objects.status import Refused, Status

__all__ = ["MAX_UNITS", "NameKey", "parse_path", "resolve_name", "session_directory"]

MAX_UNITS: Final = 260
"""Length limit of a name in UTF-16 units, prefixes included (B7: the documented D3D limit; drivers check no other)."""


class NameKey(msgspec.Struct, frozen=True):
    """A resolved name: `key` is its key in the directory, `display` the full path in the creator's case."""

    key: str
    display: str
    is_global: bool


def resolve_name(name: str, session: int) -> NameKey:
    """Resolve `name` for a program in session `session`.

    Raises Refused: OBJECT_NAME_INVALID for names that an object cannot have (empty, too long, a NUL, a lone surrogate,
    empty components), OBJECT_PATH_NOT_FOUND for a component before the last that is not Global, Local or
    Session\\<id>.
    """
    if len(name) > MAX_UNITS // 2 or not name.isascii():
        _check_units(name)
    if "\0" in name:
        raise Refused(
            Status.OBJECT_NAME_INVALID,
            f"The name {name!r} contains a NUL at index {name.index(chr(0))}; Windows would end it there and share "
            "another name. Remove the NUL.",
        )
    if "\\" not in name:
        if not name:
            raise Refused(
                Status.OBJECT_NAME_INVALID,
                "The name is empty. Give it at least one character, or pass no name at all for an unnamed object.",
            )
        return _key(session, name)
    return _walk(name, session)


def parse_path(path: str, session: int) -> NameKey:
    """Return the key for a full path in the form of `NameKey.display`, which a client announces.

    Refused as `resolve_name`, and PATH_SYNTAX_BAD.
    """
    for where in {0, session}:
        root = session_directory(where)
        leaf = path[len(root) :]
        if path.startswith(root) and "\\" not in leaf:
            return resolve_name(leaf, where)
    raise Refused(
        Status.OBJECT_PATH_SYNTAX_BAD,
        f"{path!r} is not a full path of an object in session {session}. Announce the path that the object manager "
        "gave.",
    )


def _walk(name: str, session: int) -> NameKey:
    parts = name.split("\\")
    if "" in parts:
        where = "starts with" if not parts[0] else "ends with" if not parts[-1] else "doubles"
        raise Refused(
            Status.OBJECT_NAME_INVALID,
            f"The name {name!r} {where} a backslash. Names are relative: write 'X', 'Local\\X' or 'Global\\X'.",
        )
    here = session
    steps = iter(parts[:-1])
    for part in steps:
        word = _fold(part)
        if word == "GLOBAL":
            here = 0
        elif word == "LOCAL":
            pass  # Local is a link to the directory that contains it
        elif word == "SESSION":
            number = next(steps, None)
            if number not in {"0", str(session)}:
                raise _no_path(name, part if number is None else f"{part}\\{number}", session)
            here = int(number)
        else:
            raise _no_path(name, part, session)
    return _key(here, parts[-1])


def _no_path(name: str, part: str, session: int) -> Refused:
    return Refused(
        Status.OBJECT_PATH_NOT_FOUND,
        f"The name {name!r} goes through {part!r}, which is not a directory. Only 'Local\\', 'Global\\' and "
        f"'Session\\{session}\\' may precede a name; a backslash cannot be part of one.",
    )


def _check_units(name: str) -> None:
    try:
        units = len(name.encode("utf-16-le")) // 2
    except UnicodeEncodeError as error:
        raise Refused(
            Status.OBJECT_NAME_INVALID,
            f"The name {name!r} contains half a character (a lone surrogate) at index {error.start}. Use whole "
            "characters.",
        ) from None
    if units > MAX_UNITS:
        raise Refused(
            Status.OBJECT_NAME_INVALID,
            f"The name has {units} UTF-16 units, at most {MAX_UNITS} are allowed: {name[:40]!r}… Shorten it.",
        )


def session_directory(session: int) -> str:
    """Return the full path of a session's directory of named objects, with the last backslash."""
    return f"\\Sessions\\{session}\\BaseNamedObjects\\" if session else "\\BaseNamedObjects\\"


def _key(session: int, leaf: str) -> NameKey:
    return NameKey(f"{session}\\{_fold(leaf)}", session_directory(session) + leaf, session == 0)


def _fold(text: str) -> str:
    """Return the name in one-to-one upper case, as the NT kernel folds it: the length stays, and non-ASCII stays so."""
    if text.isascii():
        return text.upper()
    return "".join(_fold_character(c) for c in text)


def _fold_character(character: str) -> str:
    upper = character.upper()
    if len(upper) != 1 or ord(character) > 0xFFFF or upper.isascii() != character.isascii():
        return character
    return upper
