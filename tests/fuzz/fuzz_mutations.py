"""Mutations of a scenario's text, each drawn from one random generator."""

import random
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import yaml
from fuzz_bases import GOOD, SPECIAL

from sim.scenario.form import key_paths, schema_at
from sim.scenario.schema import Scenario

NUMBERS: Final = (
    0, 1, -1, 2, 3, 7, 8, 16, 64, 255, 256, 257, 4096, 65536, 100_000, 10**6, 10**9, 10**12, 10**12 + 1, 2**31, 2**53,
    2**63 - 1, 2**63, 2**64, 10**19, 10**80, 0.5, 0.1, 1.0, 1e-3, 0.999999999, 1 - 1e-16, 1.0000001, -0.0, -0.5, 1e-12,
    1e-300, 1e-320, 5e-324, 1e19, 1e154, 1e200, 1e300, 1.7e308, float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
TEXTS: Final = (
    "", " ", "nan", "NaN", ".nan", "inf", "1e400", "-1e400", "null", "~", "true", "no", "0x10", "1_000",
    "12:30:00", "x" * 1000, "x" * 100_000, "é" * 50, "\u202e", "a\nb", "a\tb", "../../..", "deepseek-v3.2", "h100_sxm",
    "b200_sxm", "gb200_nvl72",
    "sglang", "vllm", "trtllm", "![x](http://127.0.0.1/leak.png)", "[bold]x[/bold]", "{{7*7}}", "%s%n", "$(true)",
    "off",
)  # fmt: skip
COUNTS: Final = tuple(n for n in NUMBERS if isinstance(n, int) and n >= 0)
SIZES: Final = tuple(n for n in NUMBERS if 0 <= n <= 1.7e308)
SHAPES: Final = ({}, [], [[]], {"x": 1}, [1, 2, 3], {"constant": 5}, None, True, False)

LEAVES: Final = [
    path for path in key_paths(Scenario) if schema_at(Scenario, path).get("type") not in ("object", "array")
]
"""Every key of a scenario that holds one value."""


def mutated(text: str, rng: random.Random) -> str:
    """The scenario with one to four mutations."""
    tree = yaml.safe_load(text)
    count = rng.choice((1, 1, 1, 2, 2, 3, 4))
    if rng.random() < 0.6:
        for _ in range(count):
            _set(tree, rng)
        return str(yaml.safe_dump(tree, sort_keys=False))
    for _ in range(count):
        _mutate(tree, rng)
    if rng.random() < 0.3:
        _reduce(tree, rng)
    try:
        told = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    except RecursionError:  # what is nested deeper than PyYAML can write
        told = "model: " + "[" * 1000
    return _garbled(told, rng) if rng.random() < 0.1 else told


def shaken(text: str, rng: random.Random) -> str:
    """Any YAML with one to four changes."""
    tree = yaml.safe_load(text)
    for _ in range(rng.choice((1, 1, 2, 4))):
        _mutate(tree, rng)
    try:
        told = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    except RecursionError:
        told = text
    return _garbled(told, rng) if rng.random() < 0.2 else told


def broken_file(name: str, folder: Path, rng: random.Random) -> str:
    """Write the sound file `name` with something broken in it; its name, relative to `folder`."""
    where = f"files/broken-{name}"
    (folder / where).write_text(broken_text(GOOD[name], rng), encoding="utf-8", errors="surrogatepass")
    return where


def broken_text(text: str, rng: random.Random) -> str:
    """The text with other numbers, characters or lines in a few places."""
    for _ in range(rng.randint(1, 3)):
        numbers = [*re.finditer(r"-?\d+(\.\d+)?", text)]
        how = rng.random()
        if how < 0.6 and numbers:
            spot = rng.choice(numbers)
            text = text[: spot.start()] + _written(rng.choice(NUMBERS)) + text[spot.end() :]
        elif how < 0.8:
            text = _garbled(text, rng)
        else:
            lines = text.split("\n")
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            text = "\n".join(lines)
    return text


def _set(tree: Any, rng: random.Random) -> None:
    """Give a key of the form a value of its own kind, written or not: what comes through the first check."""
    path = rng.choice(LEAVES)
    schema = schema_at(Scenario, path)
    whole = schema.get("type") == "integer"
    if "enum" in schema or schema.get("type") == "boolean":
        value = rng.choice(schema.get("enum", (True, False)))
    elif schema.get("type") in ("integer", "number"):
        value = rng.choice(COUNTS if whole else SIZES)
        if whole or rng.random() < 0.5:
            value = rng.choice((value, rng.randint(1, 64), 2 ** rng.randint(0, 20)))
        ends = [schema[end] for end in ("minimum", "exclusiveMinimum", "maximum") if end in schema]
        if ends and rng.random() < 0.4:
            value = rng.choice(ends)
            value = int(value) if whole else value * rng.choice((1, 1, 1.001, 0.999))
    else:
        value = rng.choice((*SPECIAL, *(f"files/{name}" for name in GOOD)))
    for key in path[:-1]:
        inner = tree.get(key)
        if not isinstance(inner, dict) or (len(path) > 2 and key in ("arrivals", "input", "output")):
            inner = tree[key] = {}
        tree = inner
    tree[path[-1]] = value


def _mutate(tree: Any, rng: random.Random) -> None:
    """Change the tree in one place."""
    spots = [*_spots(tree)]
    if not spots:
        return
    holder, key = rng.choice(spots)
    value = holder[key]
    how = rng.random()
    if isinstance(value, bool):
        holder[key] = rng.choice((not value, 1, "true"))
    elif isinstance(value, int | float) and how < 0.8:
        holder[key] = (
            rng.choice(NUMBERS) if how < 0.6 else value * rng.choice((2, 3, 10, 1000, 0.5, 1e-3, -1))
        )
    elif isinstance(value, str) and how < 0.4:
        holder[key] = rng.choice(TEXTS)
    elif isinstance(value, str) and how < 0.75 and ("." in value or "/" in value):
        holder[key] = rng.choice(SPECIAL)
    elif how < 0.85:
        _restructure(tree, holder, key, spots, rng)
    else:
        holder[key] = rng.choice((*SHAPES, *NUMBERS, *TEXTS, *SPECIAL))


def _restructure(tree: Any, holder: Any, key: Any, spots: list[tuple[Any, Any]], rng: random.Random) -> None:
    """Delete, rename, swap, move, or nest."""
    other_holder, other = rng.choice(spots)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            name = str(key)
            at = rng.randrange(len(name)) if name else 0
            holder[name[:at] + rng.choice("abxyz_-. ") + name[at + rng.randint(0, 1) :]] = holder.pop(key)
        case 2:
            holder[key], other_holder[other] = other_holder[other], holder[key]
            _untie(tree)
        case 3 if isinstance(holder, dict):
            with suppress(RecursionError):  # what is nested deeper than PyYAML can write stays where it is
                holder[str(other)] = yaml.safe_load(yaml.safe_dump(other_holder[other]))
        case 4:
            for _ in range(rng.choice((1, 3, 30, 200))):
                holder[key] = {"extends": holder[key]} if rng.random() < 0.5 else [holder[key]]
        case _:
            tree["extends"] = rng.choice((*SPECIAL, "plain.yaml", "chat.yaml", "two-pools.yaml"))


def _untie(tree: Any) -> None:
    """A swap of a section with a part of itself would make a ring: cut it."""
    try:
        yaml.safe_dump(tree)
        for holder, key in _spots(tree):
            if isinstance(holder[key], dict | list):
                holder[key] = yaml.safe_load(yaml.safe_dump(holder[key]))
    except RecursionError:
        tree.clear()


def _reduce(tree: Any, rng: random.Random) -> None:
    """Leave out some of what is not needed, so that what is left comes through the first check more often."""
    for key in ("objectives", "price", "speculation", "overlap", "indexer", "experts", "scheduling"):
        if isinstance(tree, dict) and rng.random() < 0.5:
            tree.pop(key, None)


def _spots(node: Any, seen: tuple[int, ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Every (holder, key) of the tree."""
    if id(node) in seen or len(seen) > 50:
        return
    keys = [*node] if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    for key in keys:
        yield node, key
        yield from _spots(node[key], (*seen, id(node)))


def _garbled(text: str, rng: random.Random) -> str:
    """Characters in, out or changed."""
    at = rng.randrange(len(text) + 1)
    match rng.randrange(6):
        case 0:
            return text[:at] + rng.choice("{}[]:,&*!|>'\"%@`#\0\x85\ufeff\u2028") + text[at:]
        case 1:
            return text[:at] + text[at + rng.randint(1, 40) :]
        case 2:
            return text[:at] + rng.choice(("[", "{a: ", "- ", "? ")) * rng.choice((5, 50, 5000)) + text[at:]
        case 3:
            return text + text
        case 4:
            return "{" + ", ".join(f"k{i}: 1" for i in range(rng.choice((50, 2000)))) + "}"
        case _:
            return text[:at] + "9" * rng.choice((20, 400, 5000)) + text[at:]


def _written(number: float) -> str:
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(repr(number), repr(number))
