"""Nested state (dictionaries, lists, tuples) as flat names and back, and its deep copies.

A name is the path to a leaf, its parts joined by "/": {"shadow": [a, b]} holds "shadow/0" and "shadow/1".
Leaves are tensors, numbers, strings, None, and whatever else an object keeps in its `state_dict()`.
"""

import copy
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch

_UNCHANGING = (int, float, str, type(None))


def map_leaves(tree: Any, change: Callable[[str, Any], Any], *, path: str = "") -> Any:
    """The same tree with every leaf replaced by `change(path, leaf)`; dictionaries, lists and tuples are new."""
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, map_leaves(value, change, path=_join(path, key))) for key, value in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)(map_leaves(value, change, path=_join(path, index)) for index, value in enumerate(tree))
    return change(path, tree)


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by path, in the tree's own order; tensors are the same objects, not copies."""
    leaves: dict[str, Any] = {}
    map_leaves(tree, lambda path, leaf: leaves.setdefault(path, leaf))
    return leaves


def rebuild(template: Any, leaves: Mapping[str, Any]) -> Any:
    """Tree of the template's shape with the leaves of these paths; a path that is absent keeps the template's leaf."""
    return map_leaves(template, lambda path, leaf: leaves.get(path, leaf))


def copy_state(tree: Any) -> Any:
    """Deep copy that shares nothing: tensors cloned and detached on their device, other leaves copied by python."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, _UNCHANGING):
        return tree
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, copy_state(value)) for key, value in tree.items())
    if type(tree) in (list, tuple):
        return type(tree)([copy_state(value) for value in tree])
    return copy.deepcopy(tree)


def _join(path: str, key: object) -> str:
    return f"{path}/{key}" if path else str(key)
