"""The flags that are known of an engine, from `flags/ENGINE.yaml`."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import yaml

Takes = Literal["switch", "count", "int", "number", "text", "json", "value", "words"]
Fate = Literal["setting", "not_modelled", "ignored"]

PLAIN: Final = (False, None, "", "auto", "none", "null", "false")
"""Values of a flag that is not modelled which leave the engine as it is without the flag."""


@dataclass(frozen=True, slots=True)
class Flag:
    """What is known of one spelling of a flag."""

    name: str
    takes: Takes
    fate: Fate
    why: str
    """The setting that it is; or why it is not modelled, or may be ignored."""
    neutral: object = None
    """The value with which it says nothing."""

    def says_nothing(self, value: object) -> bool:
        """Whether the engine would do the same without it."""
        plain = value.lower() if isinstance(value, str) else value
        # On without the flag: to switch it off says something.
        if self.takes == "switch" and self.neutral is True:
            return plain is True
        return plain in PLAIN or (
            self.neutral is not None and str(plain).lower() == str(self.neutral).lower()
        )


@dataclass(frozen=True)
class FlagTable:
    """Flags and environment variables of an engine."""

    engine: str
    release: str
    flags: Mapping[str, Flag]
    """By spelling, hyphens for underscores where they begin with a hyphen."""
    variables: Mapping[str, Flag]
    prefixes: tuple[str, ...]
    """What the names of the engine's own variables begin with."""

    def find(self, spelling: str) -> tuple[Flag, ...]:
        """The flag of that spelling; else the flags that it abbreviates, as argparse takes them; maybe none."""
        name = spelled(spelling)
        if name in self.flags:
            return (self.flags[name],)
        if not name.startswith("--"):
            return ()
        begun = [flag for known, flag in self.flags.items() if known.startswith(name)]
        return tuple({(flag.fate, flag.why, flag.name): flag for flag in begun}.values())

    def nearest(self, spelling: str) -> str:
        """`; the nearest known flag is --x`, empty where none is near."""
        near = difflib.get_close_matches(spelled(spelling), list(self.flags), n=1, cutoff=0.6)
        return f"; the nearest known one is {near[0]}" if near else ""


def spelled(name: str) -> str:
    """The spelling under which a table holds a flag; keys of a file keep their underscores."""
    return name.replace("_", "-") if name.startswith("-") else name


@cache
def table(engine: str, wrapper: str = "") -> FlagTable:
    """The flags of an engine; with those of what is wrapped around it, such as `dynamo`."""
    data = _file(engine)
    flags = dict(_flags(data, data["neutral"]))
    if wrapper:
        around = _file(wrapper)
        flags |= {**dict(_flags(around["all"], {})), **dict(_flags(around[engine], {}))}
    variables: dict[str, Flag] = {
        name: Flag(name, "text", "setting", setting)
        for name, setting in data["environment"]["settings"].items()
    }
    for fate in ("not_modelled", "ignored"):
        for group in data["environment"][fate]:
            for name in group["names"]:
                variables[name] = Flag(name, "text", fate, group["why"])  # type: ignore[arg-type]
    return FlagTable(data["engine"], str(data["release"]), flags, variables, tuple(data["prefixes"]))


def _file(name: str) -> Mapping[str, Any]:
    text = resources.files("sim.launch.flags").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    data: Mapping[str, Any] = yaml.safe_load(text)
    return data


def _flags(data: Mapping[str, Any], neutral: Mapping[str, object]) -> Iterable[tuple[str, Flag]]:
    """Spelling and flag of every one in a table, whose lists group them by reason and by what they take."""
    for setting, entry in data.get("settings", {}).items():
        for name in (entry["flag"], *entry.get("also", ())):
            yield name, Flag(name, entry["takes"], "setting", setting)
    fates: tuple[Fate, ...] = ("not_modelled", "ignored")
    kinds: tuple[Takes, ...] = ("switch", "value", "words")
    for fate in fates:
        for group in data.get(fate, ()):
            for takes in kinds:
                for name in group.get(takes, ()):
                    yield name, Flag(name, takes, fate, group["why"], neutral.get(name))
