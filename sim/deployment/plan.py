"""A scenario resolved once, and its second stage of checking: does the deployment exist, divide and fit?

    Scenario -> names, divisions, formats (`Problem`s) -> Deployment: model, GPU, engine, drafts, the plan of each pool

Every problem names the key that causes it, and all of them are raised at once. Whoever needs more than the scenario's
own words takes the `Deployment`, and asks the scenario for nothing that it holds.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from sim.catalog import Engine, Gpu, Model
from sim.deployment.anchored import anchor_of
from sim.deployment.checks import name_problems, setting_problems, shape_problems
from sim.deployment.device import gpu_of
from sim.deployment.drafts import Drafts, drafting_model, drafts_of
from sim.deployment.engine import engine_of
from sim.deployment.fit import memory_problems
from sim.deployment.pools import PoolPlan, unchecked_pool
from sim.deployment.prefix_tiers import PrefixCachePlan, prefix_cache_plan, prefix_cache_problems
from sim.deployment.profile_choice import profile_of
from sim.frozen import Frozen
from sim.scenario.anchor import Anchor
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Precision, Scenario


@dataclass(frozen=True, slots=True)
class Deployment:
    """A scenario's deployment, resolved: all that a step depends on. Equal ones have equal steps as long as the files
    that they name stay as they are, so that it may be the key of a cache; loads and prices are not part of it."""

    model: Model
    gpu: Gpu
    engine: Engine
    """With what the scenario says instead of its release's rules."""
    precision: Precision
    drafts: Drafts
    indexer_scores: str
    """How scores lie that DSA's top-k selects from; see `sim.scenario.step.Indexer`."""
    profile: str | None
    """Name of the profile that prices it; None: there is none, and the roofline does."""
    profile_named: bool
    """Whether the scenario named it, or its absence; else it is that of the GPU and the engine."""
    pools: Mapping[str, PoolPlan]
    anchor: Anchor | None
    """One's own measurement that its times and its TTFT are adjusted to."""
    prefix_cache: PrefixCachePlan | None
    """None where it is off, or the pool that computes prompts was not asked for."""

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(plan.total_gpus for plan in self.pools.values())

    def pool(self, name: str) -> PoolPlan:
        """The pool of that role, or the one that does the phase of that name."""
        return self.pools.get(name) or self.pools["serve"]


def deploy(scenario: Scenario, profiles: Collection[str] | None = None) -> Deployment:
    """The checked deployment: it exists, divides and fits. `profiles`: shipped profile names, to check `profile`
    against (None: not checked).

    Raises DeploymentError with every problem: unknown names, what does not divide, formats that the GPU lacks, and
    pools whose memory does not suffice (how many GB are missing and which changes would fit).
    """
    problems = [*name_problems(scenario, profiles)]
    if not _nameless(problems):
        problems += setting_problems(scenario)
        for role in scenario.deployment.pools():
            problems += shape_problems(scenario, role) or memory_problems(scenario, role)
    if problems:
        raise DeploymentError(problems)
    deployment = _resolved(scenario, scenario.deployment.pools())
    if problems := [*prefix_cache_problems(deployment.prefix_cache, deployment.pools)]:
        raise DeploymentError(problems)
    return deployment


def resolve(scenario: Scenario, pool: str | None = None) -> Deployment:
    """The deployment, whether its caches fit or not (`memory.fits` of each pool). `pool`: of this one only, by its role
    or by a phase that it does; None: of all.

    Raises DeploymentError where names are unknown, the profile is another GPU's, or a pool's layout does not divide.
    """
    roles = [*scenario.deployment.pools()]
    if pool is not None:
        roles = [pool if pool in roles else "serve"]
    problems = [problem for problem in name_problems(scenario) if problem.path[0] != "price"]
    if problems := problems or [problem for role in roles for problem in shape_problems(scenario, role)]:
        raise DeploymentError(problems)
    return _resolved(scenario, roles)


def plan_pool(scenario: Scenario, role: str) -> PoolPlan:
    """The plan of one pool, whether its cache fits or not. Raises as `resolve`."""
    return resolve(scenario, role).pools[role]


def _resolved(scenario: Scenario, roles: Iterable[str]) -> Deployment:
    pools = {role: unchecked_pool(scenario, role) for role in roles}
    return Deployment(
        model=drafting_model(scenario),
        gpu=gpu_of(scenario),
        engine=engine_of(scenario),
        precision=scenario.precision,
        drafts=drafts_of(scenario),
        indexer_scores=scenario.indexer.scores,
        profile=profile_of(scenario),
        profile_named=scenario.profile is not None,
        pools=Frozen(pools),
        anchor=anchor_of(scenario),
        prefix_cache=prefix_cache_plan(scenario, pools),
    )


def _nameless(problems: Iterable[Problem]) -> list[Problem]:
    """Unknown models and GPUs, and caches that they have not, without which nothing can be computed."""
    needed = (("model",), ("gpu",), ("precision", "kv_cache"))
    return [problem for problem in problems if problem.path in needed]
