"""A scenario -> the launch commands that start it, one per pool and node, and what they cannot say."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sim.deployment.plan import resolve
from sim.launch import write_sglang, write_trtllm, write_vllm
from sim.launch.untold import untold
from sim.launch.wanted import Wanted, wanted
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario


class Writer(Protocol):
    """The commands of one engine."""

    def commands(self, one: Wanted) -> Iterator[str]:
        """The commands of a pool."""
        ...

    def router(self, pools: Mapping[str, Wanted], policy: str) -> str | None:
        """The command of a router, where one is needed."""
        ...


WRITERS: Final[Mapping[str, Writer]] = {
    "sglang": write_sglang,
    "vllm": write_vllm,
    "trtllm": write_trtllm,
}


@dataclass(frozen=True)
class Written:
    """Launch commands of a scenario."""

    engine: str
    commands: tuple[str, ...]
    """Each with the comment that says where it runs; files of options among them."""
    cannot: tuple[str, ...]
    """What of the scenario the engine cannot be told."""

    @property
    def text(self) -> str:
        """All of them, as a file that `launch read` reads."""
        return "\n\n".join(self.commands) + "\n"

    def json(self) -> dict[str, Any]:
        """What `launch write --json` prints."""
        return {"engine": self.engine, "commands": list(self.commands), "cannot": list(self.cannot)}


def write_launch(scenario: Scenario, engine: str | None = None) -> Written:
    """The commands of a checked scenario, for its own engine or another.

    Raises DeploymentError where that engine has no such layout, or the scenario's engine is not to be had.
    """
    name = engine or scenario.engine
    if name not in WRITERS:
        says = f"{name} is not an engine that can be launched; expected --engine {', '.join(WRITERS)}"
        raise DeploymentError([Problem(("engine",), says)])
    writer = WRITERS[name]
    deployment = resolve(scenario)
    pools = {role: wanted(scenario, deployment, role, name) for role in deployment.pools}
    texts = [text for one in pools.values() for text in writer.commands(one)]
    if front := writer.router(pools, scenario.router):
        texts.append(front)
    several = any(one.pool.workers > 1 for one in pools.values())
    cannot = [*(said for one in pools.values() for said in one.cannot), *untold(scenario, name)]
    if name == "trtllm" and several and len(pools) == 1:
        cannot.append("a router over several workers: trtllm-serve has one for disaggregated services only")
    return Written(name, tuple(texts), tuple(dict.fromkeys(cannot)))
