"""Reads the YAML files of this folder: facts (value, unit, source) become plain values."""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

try:
    import yaml
except ModuleNotFoundError:  # a bare machine that calibrates: it reads the models alone
    yaml = None  # type: ignore[assignment]

from sim.catalog import plain_yaml

FACT_KEYS = frozenset({"value", "unit", "source"})
OPTIONAL_FACT_KEYS = frozenset({"note", "as_of"})


class UnknownName(LookupError):
    """A name that the catalog does not hold. `str()` offers the nearest valid names.

    Positional arguments only, so that SimPy can raise it again (it calls `type(exc)(*exc.args)`).
    """

    def __init__(self, kind: str, name: str, nearest: tuple[str, ...]) -> None:
        super().__init__(kind, name, nearest)
        self.kind = kind
        self.name = name
        self.nearest = nearest

    def __str__(self) -> str:
        return f"unknown {self.kind} {self.name!r}; expected {' or '.join(self.nearest)}"


def nearest_names(name: str, valid: Iterable[str]) -> tuple[str, ...]:
    """The valid names most like `name`, best first; every valid name if none is alike."""
    valid = sorted(valid)
    return tuple(difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)) or tuple(valid)


def is_fact(node: object) -> bool:
    """Whether a YAML node is a fact and not a section of facts."""
    return isinstance(node, Mapping) and "value" in node


def values(node: Any) -> Any:
    """The node with every fact replaced by its value."""
    if is_fact(node):
        return node["value"]
    if isinstance(node, Mapping):
        return {key: values(child) for key, child in node.items()}
    return node


@cache
def read(file: str) -> Mapping[str, Any]:
    """One YAML file of this folder, facts unopened."""
    text = resources.files("sim.catalog").joinpath(file).read_text(encoding="utf-8")
    content: Mapping[str, Any] = plain_yaml.parse(text) if yaml is None else yaml.safe_load(text)
    return content


def version(release: str) -> tuple[int, ...]:
    """`0.5.6.post1` -> (0, 5, 6, 1): releases in their order."""
    return tuple(int(number) for number in re.findall(r"\d+", release))


def aliases(kind: str) -> Mapping[str, str]:
    """Other names of the catalog's models, GPUs or engines, and what they stand for; `kind`: model, gpu or engine."""
    names: Mapping[str, str] = read(f"{kind}s.yaml")["aliases"]
    return names


def resolve(kind: str, name: str, known: Mapping[str, Any], aliases: Mapping[str, str]) -> str:
    """The catalog's own name for `name`, in any case. Raises UnknownName."""
    key = name.lower()
    key = aliases.get(key, key)
    if key not in known:
        raise UnknownName(kind, name, nearest_names(name, [*known, *aliases]))
    return key
