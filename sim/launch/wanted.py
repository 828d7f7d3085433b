"""What a launch command has to say of one pool, whichever engine says it."""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sim import catalog
from sim.catalog import Gpu, Model
from sim.deployment.plan import Deployment
from sim.deployment.pools import PoolPlan
from sim.launch import kernels
from sim.launch.model_names import beside_nvfp4, placeholder, repository, with_drafter
from sim.scenario.schema import Experts, Pool, Precision, Scenario

PORT: Final = 8000
"""Where every server listens: each has a host of its own."""
ROUTER: Final = {
    "prefix_aware": "cache_aware", "round_robin": "round_robin", "least_loaded": "power_of_two", "random": "random",
}  # fmt: skip
"""Policies in the words of SGLang's router and vLLM's."""
LINE: Final = 100
"""Characters of a command on one line."""

Flags = Sequence[str | tuple[str, Any]]
"""Switches, and flags with their value."""


@dataclass
class Wanted:
    """One pool of a scenario, resolved, and what its commands cannot say."""

    scenario: Scenario
    role: str
    pool: Pool
    """As the scenario has it."""
    plan: PoolPlan
    """As it was resolved."""
    model: Model
    gpu: Gpu
    checkpoint: str
    cannot: list[str] = field(default_factory=list)

    @property
    def chunk_tokens(self) -> int:
        """New prompt tokens per rank and step."""
        return self.plan.chunk_tokens

    @property
    def dp(self) -> int:
        """Attention-DP ranks."""
        return self.plan.dp

    @property
    def seats(self) -> int:
        """Running sequences of a rank."""
        return self.plan.max_sequences

    def block_tokens(self, engine: str) -> int | None:
        """Tokens of a hashed block; None where the engine has as many by itself."""
        said, own = self.scenario.prefix_cache.block_tokens, catalog.engine(engine).kv_block_tokens
        if self.model.compressed:
            own = catalog.launch_defaults(engine).get("block_tokens_compressed") or own
        return None if said == own else said

    @property
    def exchanges(self) -> bool:
        """Whether experts are reached by an all-to-all."""
        return self.plan.layout.all_to_all

    @property
    def spreads(self) -> bool:
        """Whether ranks have several ways to reach the experts: each is whole on one GPU of several ranks."""
        return self.pool.tp < self.pool.gpus == self.pool.ep

    @property
    def fused(self) -> bool:
        """Whether the experts' kernels send the tokens themselves."""
        return self.plan.layout.exchange_in_experts

    def kernels(self, engine: str) -> str | None:
        """What the engine calls the pool's kernels of the routed experts, where a flag names them."""
        name = self.pool.moe_backend
        if name is None:
            return None
        theirs = kernels.written(engine, name, self.scenario.precision.weights)
        if theirs is None and not (engine == "sglang" and self.fused):
            self.cannot.append(f"deployment.{self.role}.moe_backend: no flag names {name}")
        return theirs

    @property
    def experts(self) -> Experts:
        """How the pool places its experts."""
        return self.plan.experts

    def ranks_by_load(self, engine: str) -> None:
        """Says so where the engine chooses among the ranks of a worker by their load, and the scenario otherwise."""
        policy = self.scenario.router
        if self.dp > 1 and self.role != "prefill" and policy != "least_loaded":
            self.cannot.append(f"router {policy} among the ranks of a worker: {engine} chooses by their load")

    @property
    def rebalances(self) -> bool:
        """Whether experts have replicas, or are moved: only where they are spread over GPUs."""
        return self.pool.ep > 1 and (bool(self.experts.redundant) or self.experts.placement == "global")

    @property
    def nodes(self) -> int:
        """Nodes of one worker, with as many GPUs on each."""
        least = -(-self.pool.gpus // self.gpu.gpus_per_node)
        return next(n for n in range(least, self.pool.gpus + 1) if self.pool.gpus % n == 0)

    def host(self, worker: int, node: int = 0) -> str:
        """The name of a node; whoever runs the commands gives it its meaning."""
        return f"{self.role}{worker}-node{node}"

    def head(self, worker: int, node: int = 0) -> str:
        """The comment above a command."""
        of_nodes = f", node {node + 1} of {self.nodes}" if self.nodes > 1 else ""
        return f"# {self.role} worker {worker + 1} of {self.pool.workers}{of_nodes}, on {self.host(worker, node)}"


def wanted(scenario: Scenario, deployment: Deployment, role: str, engine: str) -> Wanted:
    """A pool of a checked scenario."""
    pool, plan = scenario.deployment.pools()[role], deployment.pools[role]
    model, precision = deployment.model, deployment.precision
    cannot = [*_placement(plan.experts, engine, pool.ep)]
    name = _checkpoint(scenario, model, engine, cannot)
    told = (precision.attention_format, precision.dense_format)
    beside = Precision(weights=precision.weights)
    theirs = (
        beside_nvfp4(model)
        if precision.weights == "nvfp4"
        else (beside.attention_format, beside.dense_format)
    )
    if told != theirs:
        says = "the checkpoint has its attention in {} and its dense layers in {}, not in {} and {}"
        cannot.append(says.format(*theirs, *told))
    return Wanted(scenario, role, pool, plan, model, deployment.gpu, name, cannot)


def _placement(experts: Experts, engine: str, ep: int) -> Iterator[str]:
    """What of the experts' placement no flag sets: EPLB places them globally, and only SGLang has replicas without."""
    without = not experts.redundant or engine == "sglang"
    by_eplb = (None, "global", "contiguous") if without else (None, "global")
    untold = {
        "redundant": experts.redundant and ep == 1,
        "placement": experts.placement not in (by_eplb if ep > 1 else (None, "contiguous")),
        "rebalance_every_steps": experts.rebalance_every_steps is not None,
        "shared_expert_as_slot": experts.shared_expert_as_slot,
    }
    yield from (f"experts.{name}: no flag that is known sets it" for name, told in untold.items() if told)


def _checkpoint(scenario: Scenario, model: Model, engine: str, cannot: list[str]) -> str:
    """What the command serves: a repository that is known, or a path that somebody has to fill in."""
    form, blocks = scenario.precision.weights, scenario.speculation.method == "dspark"
    release = with_drafter(scenario.model) if blocks and scenario.speculation.draft_tokens else scenario.model
    if known := repository(release, form):
        return known
    if form == "fp8" and model.weights == "bf16" and engine != "trtllm":
        form = "bf16"  # the others quantise it as they load it: --quantization fp8
    if form == model.weights:
        return repository(release, form) or scenario.model.removesuffix("/config.json")
    path = placeholder(release, form)
    cannot.append(
        f"no checkpoint of {release} in {form} is known to be published: put yours in place of {path}"
    )
    return path


def command(words: Sequence[str], flags: Flags, environment: Mapping[str, str] | None = None) -> str:
    """A command on as many lines as it needs."""
    parts = [f"{name}={value}" for name, value in (environment or {}).items()]
    parts.append(" ".join(words))
    parts += [flag if isinstance(flag, str) else f"{flag[0]} {_value(flag[1])}" for flag in flags]
    lines, line = [], ""
    for part in parts:
        if line and len(line) + len(part) > LINE:
            lines.append(line)
            line = "  "
        line += part if line in ("", "  ") else f" {part}"
    return " \\\n".join([*lines, line])


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return shlex.quote(json.dumps(value))
    return shlex.quote(f"{value:g}" if isinstance(value, float) else str(value))


def given(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """The flags that have a value."""
    return [(flag, value) for flag, value in pairs if value is not None]


def in_front(pools: Mapping[str, Wanted], program: str, disaggregated: str, policy: str) -> str | None:
    """The command of the router in front of several workers; None where there is one.

    SGLang's router and vLLM's, which came from it, differ in `program` and in the flag for disaggregated pools.
    """
    if len(pools) == 1 and next(iter(pools.values())).pool.workers == 1:
        return None
    flags: list[str | tuple[str, object]] = [disaggregated] if len(pools) > 1 else []
    if len(pools) == 1:
        [one] = pools.values()
        flags.append("--worker-urls " + " ".join(_url(one, worker) for worker in range(one.pool.workers)))
    for role, one in pools.items():
        flags += [(f"--{role}", _url(one, worker)) for worker in range(one.pool.workers) if len(pools) > 1]
    flags.append(("--policy", ROUTER[policy]))
    return "# the router\n" + command((program,), flags)


def _url(one: Wanted, worker: int) -> str:
    return f"http://{one.host(worker)}:{PORT}"
