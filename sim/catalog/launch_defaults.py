"""What an engine does where its launch command says nothing, by release."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from sim.catalog.engines import described, facts_of
from sim.catalog.facts import numbers, version
from sim.catalog.hardware import Gpu


class LaunchDefaults:
    """Defaults of one release: the facts of `launch` and `rules` in the engine's file, by name."""

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
        return self.by_memory("chunk_tokens", gpu)


@cache
def launch_defaults(engine_name: str, release: str | None = None) -> LaunchDefaults:
    """The defaults of a release, or of the nearest that is described; the newest without one, or for one that has no
    number: nobody starts an old engine by leaving out its release."""
    known = described(engine_name)
    taken = release if release and numbers(release) else known["newest"]
    taken = min(max(taken, known["oldest"], key=version), known["newest"], key=version)
    return LaunchDefaults(engine_name, taken, facts_of(engine_name, taken))
