"""Trees: names and leaves, and the containers again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from extmem.interop import trees


def again(root: Any) -> Any:
    leaves, tree = trees.flatten(root)
    return trees.rebuild(tree, [leaf.name for leaf in leaves], lambda number: leaves[number].value)


def test_names_are_the_keys_joined_with_dots() -> None:
    leaves, tree = trees.flatten({"a": {"b": 1, "c": [2, (3,)]}, "d.e": 4})
    assert [leaf.name for leaf in leaves] == ["a.b", "a.c.0", "a.c.1.0", "d.e"]
    assert [leaf.path for leaf in leaves] == ["['a']['b']", "['a']['c'][0]", "['a']['c'][1][0]", "['d.e']"]
    assert tree is not None


@pytest.mark.parametrize(
    "root", [{"a": {"b": 1, "c": [2, (3,)]}, "d.e": 4}, [1, 2], (1, [2]), {}, [], {"a": {}}, {"a": {"b": []}}]
)
def test_containers_come_back(root: Any) -> None:
    assert again(root) == root
    assert type(again(root)) is type(root)


def test_a_flat_dictionary_needs_no_tree() -> None:
    assert trees.flatten(OrderedDict(x=1, y=2))[1] is None
    assert again(OrderedDict(x=1, y=2)) == {"x": 1, "y": 2}


def test_a_list_in_two_places_is_no_cycle() -> None:
    shared = [1]
    assert again({"a": shared, "b": shared}) == {"a": [1], "b": [1]}


def test_a_container_that_contains_itself_is_refused_with_its_place() -> None:
    root: dict[str, Any] = {"a": []}
    root["a"].append(root)
    with pytest.raises(ValueError, match=r"contains itself at \['a'\]\[0\]"):
        trees.flatten(root)


def test_keys_that_are_not_text_are_refused_with_their_place() -> None:
    with pytest.raises(TypeError, match=r"the key 3 at \['state'\] is an int"):
        trees.flatten({"state": {3: 1}})


def test_too_many_levels_are_refused() -> None:
    root: Any = 1
    for _ in range(64):
        root = [root]
    assert trees.flatten(root)[0][0].value == 1
    with pytest.raises(ValueError, match="more than 64 levels"):
        trees.flatten([root])
