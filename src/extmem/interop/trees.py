"""Trees of arrays: nested dictionaries, lists and tuples, as names and leaves, and back.

The name of a leaf is the keys and numbers on the way to it, joined with dots, as in PyTorch's state dictionaries. How
the containers were nested is kept beside the names (`sharing.table.Tree`), since names may have dots of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from extmem.arguments import a_type
from extmem.sharing.table import Tree

__all__ = ["Leaf", "flatten", "is_container", "rebuild"]

_DEPTH_LIMIT: Final = 64


class Leaf(msgspec.Struct, frozen=True):
    """An array of a tree."""

    name: str
    path: str
    """The way to it, for messages: `['encoder'][0]`."""
    value: Any


def is_container(value: object) -> bool:
    """Return whether it is a tree with branches: a mapping, a list or a tuple."""
    return isinstance(value, (Mapping, list, tuple))


def flatten(root: object) -> tuple[list[Leaf], Tree]:
    """Return the leaves of a tree, in its order, and how they were nested; None for a dictionary of leaves.

    Errors: TypeError for keys that are not text; ValueError for a container that contains itself, and for more than 64
    levels. Leaves are not looked at.
    """
    leaves: list[Leaf] = []
    above: set[int] = set()

    def walk(value: Any, names: tuple[str, ...], path: str) -> Tree:
        if not is_container(value):
            leaves.append(Leaf(".".join(names), path, value))
            return len(leaves) - 1
        if id(value) in above:
            raise ValueError(f"the tree contains itself at {path or 'its root'}; share its parts, each once")
        if len(names) >= _DEPTH_LIMIT:
            raise ValueError(f"the tree has more than {_DEPTH_LIMIT} levels at {path}; flatten some of them")
        above.add(id(value))
        try:
            if isinstance(value, Mapping):
                found = {}
                for key, inner in value.items():
                    if not isinstance(key, str):
                        raise TypeError(
                            f"the key {key!r} at {path or 'the root'} is {a_type(key)}; keys are text, as "
                            "they become names: use str(key)"
                        )
                    found[str.__str__(key)] = walk(inner, (*names, key), f"{path}[{key!r}]")
                return {"d": found}
            kind = "l" if isinstance(value, list) else "t"
            return {kind: [walk(inner, (*names, str(n)), f"{path}[{n}]") for n, inner in enumerate(value)]}
        finally:
            above.discard(id(value))

    tree = walk(root, (), "")
    flat = isinstance(root, Mapping) and all(type(node) is int for node in tree["d"].values())
    return leaves, None if flat else tree


def rebuild(tree: Tree, names: Sequence[str], leaf: Callable[[int], Any]) -> Any:
    """Return the containers of a checked tree with the results of `leaf`, which gets the number of an entry.

    names: those of the entries, for a tree that is one dictionary of them.
    """
    if tree is None:
        return {name: leaf(number) for number, name in enumerate(names)}
    if type(tree) is int:
        return leaf(tree)
    ((kind, inner),) = tree.items()
    if kind == "d":
        return {key: rebuild(node, names, leaf) for key, node in inner.items()}
    made = [rebuild(node, names, leaf) for node in inner]
    return made if kind == "l" else tuple(made)
