"""What an engine does where its launch command says nothing, by release."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from sim.catalog.engines import engine
from sim.catalog.facts import read, values
from sim.catalog.hardware import Gpu


class LaunchDefaults:
    """Defaults of one release: the facts of `launch_defaults.yaml`, by name."""

    def __init__(self, engine_name: str, release: str, facts: Mapping[str, Any]) -> None:
        self.engine = engine_name
        self.release = release
        self._facts = facts

    def get(self, name: str) -> Any:
        """The default called `name`; None where the engine has none."""
        return self._facts.get(name)

    def by_memory(self, name: str, gpu: Gpu) -> int:
        """A default that depends on the GPU's memory: that of the largest bound which the memory reaches."""
        table: Mapping[float, int] = self._facts[name]
        return table[max(least for least in table if least <= gpu.memory_bytes)]

    def chunk_tokens(self, gpu: Gpu) -> int:
        """New prompt tokens per step of the whole flag, before any division by ranks."""
        return engine(self.engine).chunk_for(gpu.memory_bytes)


@cache
def launch_defaults(engine_name: str, release: str | None = None) -> LaunchDefaults:
    """The defaults of the newest known release that is not newer than `release`; the oldest known one before that;
    the newest without a release, or with one that has no number."""
    known = sorted(
        values(read("launch_defaults.yaml"))[engine_name].items(), key=lambda item: _order(item[0])
    )
    asked = _order(release or "")
    upto = [item for item in known if not asked or _order(item[0]) <= asked]
    taken = upto or known[:1]
    facts: dict[str, Any] = {}
    for _, more in taken:
        facts |= more
    return LaunchDefaults(engine_name, taken[-1][0], facts)


def _order(release: str) -> tuple[int, ...]:
    """`0.11.0rc2` -> (0, 11, 0); what follows the numbers does not count."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", release)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
