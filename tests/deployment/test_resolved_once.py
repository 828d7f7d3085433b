"""A scenario is resolved in one room: whoever else needs its model, GPU, engine or layouts takes the Deployment."""

import ast
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import sim
from sim import catalog
from sim.deployment.plan import deploy, resolve
from sim.frozen import Frozen
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.scenario.terms import Price
from sim.steady.phases import phases

ROOT = Path(sim.__file__).parents[1]
ROOMS = {ROOT / "sim" / "deployment", ROOT / "sim" / "catalog"}
"""The one that resolves, and the one that is asked."""
RESOLVERS = {
    "gpu_of", "engine_of", "pool_experts", "profile_of", "draft_chances", "drafts_of", "engine_sharding",
    "pool_layouts", "unchecked_pool", "prefix_cache_plan",
}  # fmt: skip
LOOK_UPS = {"model", "gpu", "engine", "acceptance"}
"""Of the catalog, by a name that a scenario holds: `catalog.model(scenario.model)`."""
ALLOWED = {
    (
        "sim/workload/build.py",
        "catalog.model",
    ): "requests are drawn from a scenario alone, as for `trace`; of the model only its positions are asked",
    ("sim/cost/profile.py", "catalog.gpu"): "the device that a profile was measured on: no scenario",
    (
        "sim/validation/skips.py",
        "catalog.model",
    ): "whether a row of a published table names a known model: no scenario",
    (
        "sim/launch/read.py",
        "catalog.model",
    ): "the model of a command, from which a scenario is yet to be made",
    (
        "sim/launch/untold.py",
        "engine_of",
    ): "what an engine would do without one key after another: of none of these scenarios there is a deployment",
    (
        "sim/planner/candidates.py",
        "gpu_of",
    ): "layouts to try, of which none is a deployment yet: of the GPU only its NVLink domain is asked",
}


def resolving(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names of resolvers that are used, and look-ups in the catalog by an attribute of the same name, with lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((one.name, node.lineno) for one in node.names if one.name in RESOLVERS)
        elif isinstance(node, ast.Attribute) and node.attr in RESOLVERS:
            yield node.attr, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            asked = [arg.attr for arg in node.args[:1] if isinstance(arg, ast.Attribute)]
            if name in LOOK_UPS and asked in ([name], ["model"]):
                yield f"catalog.{name}", node.lineno


def test_nobody_else_resolves_a_scenario() -> None:
    found: dict[tuple[str, str], int] = {}
    for folder in ("sim", "calibrate", "dashboard", "docs"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if not ROOMS & set(file.parents):
                place = file.relative_to(ROOT).as_posix()
                tree = ast.parse(file.read_text(encoding="utf-8"))
                found |= {(place, name): line for name, line in resolving(tree)}
    others = {
        f"{place}:{line}: {name}" for (place, name), line in found.items() if (place, name) not in ALLOWED
    }
    assert not others, "take the Deployment instead"
    assert set(ALLOWED) <= set(found), "no longer needed"


@pytest.mark.parametrize(
    "line",
    ["from sim.deployment.device import gpu_of", "engine.engine_of(scenario)", "catalog.model(scenario.model)",
     "catalog.model(self.scenario.model).max_positions", "model(scenario.model)", "catalog.gpu(one.gpu)",
     "catalog.acceptance(scenario.model, 1, None, None)"],
)  # fmt: skip
def test_the_ways_to_resolve_are_seen(line: str) -> None:
    assert [*resolving(ast.parse(line))]


def scenario(more: str = "", gpus: int = 16, gpu: str = "h200_sxm", prefill_tp: int = 1) -> Scenario:
    return parse(
        f"model: deepseek-v3.2\ngpu: {gpu}\n"
        f"deployment: {{prefill: {{gpus: 8, ep: 8, tp: {prefill_tp}}}, decode: {{gpus: {gpus}, ep: {gpus}}}}}\n"
        "workload: {arrivals: {poisson: {rate_per_s: 1}}, lengths: {input: {constant: 900}, output: {constant: 9}}}\n"
        f"duration_s: 9\n{more}"
    ).scenario


def test_equal_deployments_are_one_key_whatever_their_load_costs() -> None:
    """And they travel: to workers of a sweep."""
    one, other = (
        deploy(scenario()),
        deploy(scenario().model_copy(update={"price": Price(usd_per_gpu_hour=9.0)})),
    )
    assert one == other and hash(one) == hash(other) and one is not other
    assert {one: 1}[pickle.loads(pickle.dumps(one))] == 1


@pytest.mark.parametrize(
    "changed",
    [scenario(gpus=32), scenario(gpu="b200"), scenario("engine: vllm"), scenario("profile: analytic"),
     scenario("experts: {popularity_sigma: balanced}"), scenario("indexer: {scores: concentrated}"),
     scenario("precision: {kv_cache: bf16}"), scenario("speculation: {draft_tokens: 1}"),
     scenario("prefix_cache: {enabled: true}"), scenario("overlap: {two_batch: true}")],
)  # fmt: skip
def test_what_a_step_depends_on_makes_another_deployment(changed: Scenario) -> None:
    assert deploy(changed) != deploy(scenario())


def test_steps_are_priced_once_for_equal_deployments() -> None:
    from sim.steady import demand_of  # noqa: PLC0415

    demand = demand_of(scenario())
    assert phases(deploy(scenario()), demand) is phases(
        deploy(scenario("price: {usd_per_gpu_hour: 9}")), demand
    )


def test_a_pool_that_does_not_fit_is_resolved_and_one_that_does_not_divide_is_not() -> None:
    """V3.2 on 8 H100 of 80 GB has no room for a KV block; tp 3 divides no 8 GPUs."""
    small = resolve(scenario(gpu="h100_sxm"))
    assert not small.pools["prefill"].memory.fits and small.pools["decode"].layouts["decode"].dp == 16
    with pytest.raises(DeploymentError, match="does not fit"):
        deploy(scenario(gpu="h100_sxm"))
    odd = scenario(prefill_tp=3)
    with pytest.raises(DeploymentError, match="tp 3 does not divide gpus 8"):
        resolve(odd)
    assert [*resolve(odd, "decode").pools] == ["decode"], "the other one may be asked for alone"


def test_a_pool_is_found_by_its_role_or_by_a_phase() -> None:
    both = deploy(scenario())
    assert both.pool("prefill").role == "prefill" and [*both.pool("decode").layouts] == ["decode"]
    one = deploy(sim.load(ROOT / "scenarios" / "chat.yaml"))
    assert one.pool("decode") is one.pool("prefill") is one.pools["serve"]
    assert [*one.pools["serve"].layouts] == ["prefill", "decode"]


def test_an_engine_and_its_tables_are_keys_too() -> None:
    engines = [catalog.engine(name) for name in catalog.engine_names()]
    assert len({*engines, *(pickle.loads(pickle.dumps(engine)) for engine in engines)}) == len(engines)
    assert Frozen({1: 2}) == {1: 2} == Frozen({1: 2}) and hash(Frozen({1: 2})) == hash(Frozen({1: 2}))


def test_the_drafts_of_a_deployment_say_what_they_yield() -> None:
    drafts = deploy(scenario("speculation: {draft_tokens: 2, acceptance: [0.8, 0.5]}")).drafts
    # 1 + 0.8 + 0.8 x 0.5
    assert drafts.accept_length() == pytest.approx(2.2)
    assert (drafts.accept_length(1), drafts.accept_length(0)) == (pytest.approx(1.8), 1.0)
