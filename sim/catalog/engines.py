"""Serving engines: `engines/` has a file of each, with what its releases have in common and what each changed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final, get_args

from sim.catalog.engine_rules import EXPERTS_KERNELS, RULES, WEIGHTS, Engine
from sim.catalog.facts import (
    FACT_KEYS,
    OPTIONAL_FACT_KEYS,
    is_fact,
    nearest_names,
    numbers,
    parse,
    resolve,
    values,
    version,
)
from sim.catalog.hardware import Generation
from sim.catalog.reserve import Reserve
from sim.frozen import Frozen

FOLDER: Final = "engines"
COMMON: Final = "common"
"""The file of what holds of every engine."""
RELEASES: Final = ("oldest", "default", "newest")
LAUNCH: Final = (
    "seats", "seats_with_drafts", "seats_compressed", "prompt_seats", "drafts", "whole_prompt_tokens",
    "kv_cache", "kv_cache_sparse", "kv_cache_compressed", "graph_batch_below_tp4", "graph_batch",
    "wait_all_ranks_steps", "host_cache_ratio", "block_tokens_compressed",
)  # fmt: skip
"""What a silent launch command means, beside the rules."""

Path = tuple[str, ...]


@cache
def engine(name: str, release: str | None = None, weights: str | None = None) -> Engine:
    """The engine of that name or alias, by the rules of a release (None: the catalog's `default`).

    `weights`: their format, which some host times depend on. Raises UnknownName.
    """
    key = resolve("engine", name, engine_names(), engine_aliases())
    release = release or described(key)["default"]
    facts = {fact: value for fact, value in facts_of(key, release).items() if fact in RULES}
    for names in ("prefill_graph_excludes", "seat_states", "hopper_bf16_matrices"):
        facts[names] = tuple(facts[names])
    rule: dict[str, Any] = {
        k: Frozen(v) if isinstance(v, Mapping) else v for k, v in facts["reserve"].items()
    }
    facts["reserve"] = Reserve(**rule)
    if isinstance(host_s := facts["host_overhead_s"], Mapping):
        facts["host_overhead_s"] = host_s.get(weights, host_s["other"])
    frozen = {name: Frozen(value) for name, value in facts.items() if isinstance(value, dict)}
    return Engine(name=key, release=release, **{**facts, **frozen})


@cache
def engine_names() -> tuple[str, ...]:
    """The catalog's engines: those that have a file."""
    files = resources.files("sim.catalog").joinpath(FOLDER).iterdir()
    found = sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
    return tuple(name for name in found if name != COMMON)


@cache
def engine_aliases() -> Mapping[str, str]:
    """Other names of the engines, and what they stand for."""
    return {alias: name for name in engine_names() for alias in read_engine(name)["aliases"]}


@cache
def read_engine(name: str) -> Mapping[str, Any]:
    """One file, facts unopened. Raises ValueError, with file and line, for what no engine's file has."""
    text = resources.files("sim.catalog").joinpath(FOLDER, f"{name}.yaml").read_text(encoding="utf-8")
    return checked(f"{FOLDER}/{name}.yaml", text)


def checked(file: str, text: str) -> Mapping[str, Any]:
    """The content of an engine's file. Raises ValueError, with file and line, for what no engine's file has."""
    content: Mapping[str, Any] = parse(text)
    for path, fault in _faults(content):
        raise ValueError(f"{file}:{_line(text, path)}: {'.'.join(path)}: {fault}")
    return content


def facts_of(name: str, release: str) -> dict[str, Any]:
    """The values of rules and launch defaults of a release: what holds of all, changed by every release up to it."""
    common, own = read_engine(COMMON), read_engine(name)
    found = {**common["rules"], **common["launch"], **own["rules"], **own.get("launch", {})}
    for changed_in in changes(name):
        if version(changed_in) <= version(release):
            found |= own["since"][changed_in]
    return {key: values(fact) for key, fact in found.items()}


def changes(name: str) -> list[str]:
    """The releases that changed something, oldest first."""
    return sorted(read_engine(name).get("since", {}), key=version)


def newer_releases(name: str, release: str | None) -> list[str]:
    """The releases that changed something after one (None: the catalog's `default`), oldest first."""
    key = resolve("engine", name, engine_names(), engine_aliases())
    taken = version(release or described(key)["default"])
    return [one for one in changes(key) if version(one) > taken]


def since(name: str, release: str, key: str) -> str:
    """The release that a rule or a default, as a release has it, is of: that which changed it last, or the oldest."""
    own = read_engine(name)["since"]
    changed = [one for one in changes(name) if version(one) <= version(release) and key in own[one]]
    return changed[-1] if changed else described(name)["oldest"]


def described(name: str) -> Mapping[str, str]:
    """The `oldest`, the `default` and the `newest` release of an engine."""
    found: Mapping[str, str] = values(read_engine(name)["releases"])
    return found


def release_taken(name: str, release: str) -> str | None:
    """Whose rules stand in for those of a release, in words; None where the release lies among those described."""
    oldest, newest = (described(name)[end] for end in ("oldest", "newest"))
    if not any(numbers(newest)):
        return None if not any(numbers(release)) else "assumptions: none is published"
    last = numbers(newest)
    if numbers(release)[: len(last)] == last:
        return None
    if version(release) > version(newest):
        return f"those of {newest}, the newest described"
    return f"those of {oldest}, the oldest described" if version(release) < version(oldest) else None


def _faults(content: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """What is wrong, with the keys that lead to it."""
    known = {"releases": RELEASES, "launch": LAUNCH, "rules": RULES}
    for section, inside in content.items():
        if section in known:
            yield from _wrong_facts((section,), inside, known[section])
        elif section == "since":
            for release, facts in inside.items():
                if not numbers(release):
                    yield (section, release), 'expected a release, such as "0.5.14"'
                yield from _wrong_facts((section, release), facts, (*RULES, *LAUNCH))
        elif section != "aliases":
            yield (section,), _unknown(section, (*known, "since", "aliases"))


def _wrong_facts(path: Path, facts: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[Path, str]]:
    for key, fact in facts.items():
        if key not in known:
            yield (*path, key), _unknown(key, known)
        elif not is_fact(fact) or not fact.keys() >= FACT_KEYS:
            yield (*path, key), "expected a value, its unit and its source"
        elif key == "prompt_pool_experts" and (wrong := _wrong_experts(fact["value"])):
            yield (*path, key), wrong
        elif key == "normal_mode_experts" and fact["value"] not in EXPERTS_KERNELS:
            yield (
                (*path, key),
                f"unknown; expected {' or '.join(nearest_names(fact['value'], EXPERTS_KERNELS))}",
            )
        elif odd := sorted(fact.keys() - FACT_KEYS - OPTIONAL_FACT_KEYS):
            yield (*path, key), f"{odd[0]}: {_unknown(odd[0], (*FACT_KEYS, *OPTIONAL_FACT_KEYS))}"


def _wrong_experts(factors: Mapping[str, float]) -> str | None:
    """What is wrong with the names of `prompt_pool_experts`; None where nothing is. A misspelt one would mean 1."""
    lists = (get_args(Generation), EXPERTS_KERNELS, WEIGHTS, ("ep",))
    for name in factors:
        words = name.split(" ")
        for word, known in zip(words, lists, strict=False):
            if word not in known:
                return f"{name}: unknown word {word}; expected {' or '.join(nearest_names(word, known))}"
        if not 2 <= len(words) <= len(lists):
            return f"{name}: expected a generation and kernels, then perhaps a format, then perhaps ep"
    return None


def _unknown(key: str, known: Iterable[str]) -> str:
    return f"unknown key; expected {' or '.join(nearest_names(key, known))}"


def _line(text: str, path: Path) -> int:
    """The line of the key that a path ends with."""
    lines, at = text.splitlines(), 0
    for name in path:
        at = next(i for i in range(at, len(lines)) if re.match(rf' *"?{re.escape(name)}"?:', lines[i]))
    return at + 1
