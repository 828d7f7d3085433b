"""A YAML document as a tree in which every value knows where it is written.

Trees are merged (`extends`, `--set`, sweeps) before they are checked, so a merged scenario still points at the file
that each of its values came from.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Integral
from typing import get_args

from sim.scenario.errors import KeyPath, Place
from sim.scenario.section import Section

Scalar = str | int | float | bool | None


@dataclass(frozen=True)
class Node:
    """A value, the place where it starts, and the place of the key that names it (None in a list and at the top)."""

    value: Scalar | dict[str, "Node"] | list["Node"]
    place: Place
    key: Place | None = None

    @property
    def shown(self) -> Place:
        """The place that a reader looks for: a section's key, else the value itself."""
        return self.key if self.key and isinstance(self.value, dict) else self.place


def plain(node: Node) -> object:
    """The tree as plain dict, list and scalars."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def walk(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Node]]:
    """Every node with its key path, parents first."""
    yield path, node
    if isinstance(node.value, dict):
        for key, child in node.value.items():
            yield from walk(child, (*path, key))
    elif isinstance(node.value, list):
        for index, child in enumerate(node.value):
            yield from walk(child, (*path, index))


def find(node: Node, path: KeyPath) -> tuple[KeyPath, Node]:
    """The node at `path`, or its nearest ancestor that is written down, with that node's own path."""
    for depth, part in enumerate(path):
        children = node.value
        if isinstance(children, dict) and part in children:
            node = children[str(part)]
        elif isinstance(children, list) and isinstance(part, int) and part < len(children):
            node = children[part]
        else:
            return path[:depth], node
    return path, node


def merge(base: Node, over: Node, form: type[Section] | None) -> Node:
    """`base` with `over` on top: sections merge key by key, anything else is replaced, null included.

    A key of `over` drops the keys of `base` that it displaces (`serve` drops `prefill` and `decode`, `constant` drops
    `lognormal`), as `form`, the section's class, declares. What is written only in `base` keeps its place there.
    """
    if not (isinstance(base.value, dict) and isinstance(over.value, dict)):
        return over
    displaces = form.displaces if form else {}
    dropped = {old for new in over.value for old in displaces.get(new, ())} - set(over.value)
    children = {key: child for key, child in base.value.items() if key not in dropped}
    for key, child in over.value.items():
        children[key] = merge(children[key], child, _subsection(form, key)) if key in children else child
    return replace(over, value=children)


def graft(value: object, place: Place) -> Node:
    """Plain data as a tree that stands at one place; a Node keeps its own. Numbers of numpy are numbers."""
    if isinstance(value, Node):
        return value
    if isinstance(value, Mapping):
        return Node({str(key): replace(graft(item, place), key=place) for key, item in value.items()}, place)
    if isinstance(value, Integral) and not isinstance(value, int):
        return Node(int(value), place)
    if isinstance(value, list | tuple):
        return Node([graft(item, place) for item in value], place)
    return Node(value if isinstance(value, get_args(Scalar)) else str(value), place)


def nest(path: KeyPath, leaf: Node) -> Node:
    """The tree that holds only `leaf`, at `path`."""
    for part in reversed(path):
        leaf = Node({str(part): replace(leaf, key=leaf.place)}, leaf.place)
    return leaf


def _subsection(form: type[Section] | None, key: str) -> type[Section] | None:
    """The class of the section that `key` holds, if it holds one."""
    field = form.model_fields.get(key) if form else None
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def positions(node: Node) -> dict[KeyPath, Place]:
    """Where every key of the document stands: a section at its key, a value at the value."""
    return {path: child.shown for path, child in walk(node)}
