"""Reads the YAML files of this folder: facts (value, unit, source) become plain values."""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
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
_STAGES = {"dev": 0, "alpha": 1, "a": 1, "beta": 2, "b": 2, "rc": 3}
"""What comes before a release, in order."""


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
    return parse(text)


def parse(text: str) -> Mapping[str, Any]:
    """The content of a YAML file."""
    if yaml is None:
        return plain_yaml.parse(text)  # type: ignore[no-any-return]
    # libyaml, where PyYAML was built with it: ten times as fast, which is half of what `check` takes
    content: Mapping[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return content


def numbers(release: str) -> tuple[int, ...]:
    """`v1.3.0rc20` -> (1, 3), without zeros at the end; none where a name begins with no number."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", release)
    parts = [int(part) for part in found[1].split(".")] if found else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)


def version(release: str) -> tuple[tuple[int, ...], int, int, int]:
    """Releases in their order: 1.3.0.dev1, 1.3.0a1, 1.3.0rc20, 1.3, 1.3.0.post1 (the order of PEP 440).

    The numbers, the stage before the release and its number, and what came after it.
    """
    before = re.search(r"(a|b|rc|alpha|beta|dev)\.?(\d*)", release)
    after = re.search(r"post\.?(\d*)", release)
    stage = _STAGES[before[1]] if before else len(_STAGES)
    count = int(before[2] or 0) if before else 0
    return numbers(release), stage, count, int(after[1] or 0) + 1 if after else 0


def resolve(kind: str, name: str, known: Collection[str], aliases: Mapping[str, str]) -> str:
    """The catalog's own name for `name`, in any case and with any of `-`, `_` and spaces. Raises UnknownName."""
    key = name.lower()
    key = aliases.get(key, key)
    if key in known:
        return key
    if other := respelt(name, known, aliases):
        return other
    raise UnknownName(kind, name, nearest_names(name, [*known, *aliases]))


def respelt(name: str, known: Iterable[str], aliases: Mapping[str, str]) -> str | None:
    """The catalog's own name that differs from `name` in case and in `-`, `_` and spaces alone; None where there is
    none, or more than one."""
    bare = _bare(name)
    found = {aliases.get(one, one) for one in (*known, *aliases) if _bare(one) == bare}
    return found.pop() if len(found) == 1 else None


def _bare(name: str) -> str:
    return re.sub(r"[-_\s]+", "", name.lower())
