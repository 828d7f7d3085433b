"""The section `search` of a plan file: what may be varied, and what is wrong with it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from sim import catalog
from sim.scenario.errors import LocatedProblem, brief, did_you_mean, dotted
from sim.scenario.form import key_paths, schema_at
from sim.scenario.schema import Scenario
from sim.scenario.tree import Node, plain

KINDS: Final = ("aggregated", "disaggregated")
OWN_KEYS: Final = ("gpu", "kind", "ratio", "max_gpus", "exclude")
"""Keys of `search` beside those of a scenario."""
RESERVED: Final = (
    "a plan chooses how many GPUs there are, at one price each; expected in the scenario that it answers with"
)


def search_problems(search: Node) -> Iterator[LocatedProblem]:
    """Keys and values of `search` that cannot be."""
    assert isinstance(search.value, dict)
    valid = [*OWN_KEYS, *map(dotted, key_paths(Scenario))]
    for key, node in search.value.items():
        at = ("search", key)
        if key not in OWN_KEYS and not schema_at(Scenario, tuple(key.split("."))):
            says = f"no key of a search or of a scenario{did_you_mean(key, valid)}"
            yield LocatedProblem(at, says, node.key or node.place)
        elif key.endswith(".workers") or key.startswith(("workload", "objectives")) or key == "deployment":
            says = (
                "the plan finds the workers, for the workload and the objectives that stand outside `search`"
            )
            yield LocatedProblem(at, says, node.key or node.place)
        elif key.startswith("price.reserved"):
            yield LocatedProblem(at, RESERVED, node.key or node.place)
        elif isinstance(node.value, list) and not node.value and key != "exclude":
            yield LocatedProblem(at, "expected at least one value", node.shown)
        elif key == "kind" and (wrong := [k for k in listed(node) if k not in KINDS]):
            yield LocatedProblem(at, f"expected {' or '.join(KINDS)}, got {wrong[0]}", node.place)
        elif key == "ratio" and (wrong := [r for r in listed(node) if not _is_ratio(r)]):
            says = f"expected workers of prefill and decode in quotes, such as '2:1', got {wrong[0]}"
            yield LocatedProblem(at, says, node.place)
        elif key == "max_gpus" and not (type(node.value) is int and node.value > 0):
            yield LocatedProblem(at, f"expected a whole number above 0, got {plain(node)}", node.place)
        elif key == "exclude" and not all(isinstance(entry, dict) for entry in listed(node)):
            says = "expected a list of sections, such as [{gpu: b200_sxm}]"
            yield LocatedProblem(at, says, node.place)
        elif key == "gpu":
            yield from _unknown_gpus(node)


def _unknown_gpus(node: Node) -> Iterator[LocatedProblem]:
    for entry in listed(node):
        name = entry.get("gpu") if isinstance(entry, Mapping) else entry
        if not isinstance(name, str):
            says = f"expected a GPU's name, or a section with one such as {{gpu: b200_sxm}}, got {brief(str(entry))}"
            yield LocatedProblem(("search", "gpu"), says, node.place)
            continue
        try:
            if not Path(name).suffix:
                catalog.gpu(name)
        except catalog.UnknownName as unknown:
            yield LocatedProblem(("search", "gpu"), str(unknown), node.place)


def _is_ratio(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[1-9]\d*:[1-9]\d*", text) is not None


def listed(node: Node) -> tuple[Any, ...]:
    value = plain(node)
    return tuple(value) if isinstance(value, list) else (value,)


def gpu_setting(entry: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """A value of `gpu`: a name, or a section of keys that go together."""
    return _gpu_name(entry) if isinstance(entry, str) else excluded(entry)


def _gpu_name(name: str) -> str:
    """The catalog's own name, or a file's as it is."""
    try:
        return catalog.gpu(name).name
    except catalog.UnknownName:
        return name


def excluded(entry: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """The values to leave out by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat |= excluded(value, f"{under}{key}.")
        else:
            flat[f"{under}{key}"] = (
                _gpu_name(value) if key == "gpu" and isinstance(value, str) and not under else value
            )
    return flat
