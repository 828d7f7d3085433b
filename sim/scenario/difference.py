"""What differs between two scenarios that are set side by side: the work that they serve, and everything else."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sim import catalog
from sim.scenario.schema import Scenario

WORK: Final = ("workload", "duration_s", "warmup_s")
"""Sections that say what has to be served; ratios between unlike work compare two things at once."""
MOST_TOLD: Final = 6
"""Keys that one sentence names; how many more there are is said."""
FIRST: Final = ("price", "model", "gpu", "engine", "precision", "deployment")
"""Sections whose differences are told before those of all others: they move a result most."""
LONGEST: Final = 40
"""Characters of a value that are shown."""


@dataclass(frozen=True)
class Difference:
    """One key that differs; None where a scenario has nothing there."""

    key: str
    first: Any
    other: Any

    @property
    def of_the_work(self) -> bool:
        return self.key.split(".")[0] in WORK

    def __str__(self) -> str:
        return f"{self.key} {_said(self.first)} -> {_said(self.other)}"


def differences(first: Scenario, other: Scenario) -> list[Difference]:
    """Every key that one of them gives a value of its own and that differs, in the order of the schema."""
    given = {key: None for one in (first, other) for key, _ in _flat(one.model_dump(exclude_defaults=True))}
    values = [dict(_flat(one.model_dump())) for one in (first, other)]
    order = {key: place for place, key in enumerate([*values[0], *values[1]])}
    keys = sorted(given, key=lambda key: order[key])
    found = [Difference(key, *(of.get(key) for of in values)) for key in keys]
    return [one for one in found if _meant(one.key, one.first) != _meant(one.key, one.other)]


def in_words(found: list[Difference]) -> str:
    """One sentence; empty where nothing differs."""
    work, rest = [d for d in found if d.of_the_work], [d for d in found if not d.of_the_work]
    parts = []
    if work:
        parts.append(f"another workload, so that ratios are of unlike work: {_listed(work)}")
    if rest:
        parts.append(f"{'and also ' if work else ''}{_listed(rest)}")
    return "; ".join(parts)


def against_first(scenarios: Mapping[str, Scenario]) -> list[str]:
    """A sentence for every scenario but the first, by name: what it has other than that."""
    (first, base), *others = scenarios.items()
    return [
        f"{name} against {first}: {in_words(differences(base, other)) or 'the same scenario'}"
        for name, other in others
    ]


def _listed(found: list[Difference]) -> str:
    """In the order of their weight; of one section what only the first scenario has comes last."""
    found = sorted(found, key=lambda one: (_weight(one.key), one.other is None))
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return ", ".join(map(str, found[:MOST_TOLD])) + more


def _weight(key: str) -> int:
    """Place of its section in `FIRST`."""
    section = key.split(".", maxsplit=1)[0]
    return FIRST.index(section) if section in FIRST else len(FIRST)


def _flat(data: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{under}{key}.")
        else:
            yield f"{under}{key}", value


def _meant(key: str, value: Any) -> Any:
    """The value, names of models and GPUs as the catalog has them."""
    if key not in ("model", "gpu") or not isinstance(value, str):
        return value
    return catalog.aliases(key).get(value.lower(), value.lower())


def _said(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return f"{value:g}"
        case tuple() | list():
            text = "/".join(map(str, value))
        case _:
            text = str(value)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
