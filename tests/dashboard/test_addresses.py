"""The address of What-if spells a scenario's deployment as it is, or says what it cannot."""

from urllib.parse import unquote

import pytest
import yaml

from dashboard.data.addresses import Address, what_if
from dashboard.settings import DEFAULTS, scenario_of, value_of
from sim.deployment.plan import resolve
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario

TEXT = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
engine: {engine}
deployment: {pools}
speculation: {{draft_tokens: {drafts}}}
workload: {{arrivals: {{poisson: {{rate_per_s: 1}}}}, lengths: {{input: {{constant: 9}}, output: {{constant: 9}}}}}}
duration_s: 9
"""


def scenario(pools: str, engine: str = "sglang", drafts: int = 0, more: str = "") -> Scenario:
    return parse(TEXT.format(pools=pools, engine=engine, drafts=drafts) + more).scenario


def spelled(address: Address) -> Scenario:
    parts = (part.partition("=") for part in address.query.split("&"))
    settings = {**DEFAULTS, **{key: value_of(key, unquote(text)) for key, _, text in parts}}
    return parse(yaml.safe_dump(scenario_of(settings))).scenario


@pytest.mark.parametrize(
    ("pools", "engine", "drafts", "seats"),
    [
        (
            "{serve: {gpus: 8, ep: 8}}",
            "sglang",
            0,
            2048,
        ),  # of a rank, as shipped (tests/deployment/test_seats.py)
        ("{serve: {gpus: 8, tp: 8}}", "sglang", 0, 2048),
        ("{serve: {gpus: 8, tp: 4}}", "sglang", 1, 24),  # 48 of a worker with drafts, over two ranks
        ("{serve: {gpus: 16, tp: 2}}", "sglang", 1, 6),
        ("{serve: {gpus: 32, tp: 4, ep: 32}}", "sglang", 1, 6),  # no multiple of tp
        ("{serve: {gpus: 8, ep: 8}}", "vllm", 0, 1024),
        ("{prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16}}", "trtllm", 0, 2048),
        ("{serve: {gpus: 8, tp: 4, max_batch_per_rank: 5}}", "sglang", 0, 5),
        ("{serve: {gpus: 8, tp: 4, max_batch_per_rank: 8}}", "sglang", 0, 8),
        ("{serve: {gpus: 8, tp: 4, max_batch_per_gpu: 16, max_batch_per_rank: 5}}", "sglang", 0, 5),
    ],
)
def test_an_address_has_the_seats_of_the_scenario(pools: str, engine: str, drafts: int, seats: int) -> None:
    address = what_if(scenario(pools, engine, drafts))
    assert address.lost == ("profile",)
    found = spelled(address)
    for role, plan in resolve(found).pools.items():
        if role != "prefill":
            assert plan.max_sequences == seats
            pool = found.deployment.pools()[role]
            assert pool.max_batch_per_gpu is None or pool.max_batch_per_rank is None, "one of them alone"


@pytest.mark.parametrize(
    ("more", "lost"),
    [
        ("price: {tier: on_demand_low}", ()),
        ("price: {usd_per_gpu_hour: 3.0}", ()),
        ("price: {usd_per_gpu_hour: 2000.0}", ("price.usd_per_gpu_hour",)),
        ("price: {reserved: {gpus: 8, usd_per_gpu_hour: 1.5}}", ("price.reserved",)),
        ("price: {hours: [{from_hour: 0, usd_per_gpu_hour: 1.5}]}", ("price.hours",)),
        ("price: {tier: on_demand_low, margin: 0.2}", ("price.margin",)),
        ("objectives: {ttft_p99_s: 2.0, tpot_p99_s: 0.03}", ("objectives.tpot_p99_s",)),
    ],
)
def test_terms_without_a_setting_are_told(more: str, lost: tuple[str, ...]) -> None:
    assert {*what_if(scenario("{serve: {gpus: 8, ep: 8}}", more=more)).lost} == {"profile", *lost}


@pytest.mark.parametrize(
    ("load", "lost"),
    [
        ("requests: 50", {"requests"}),
        ("cached_fraction: 0.55", set()),
        ("cached_fraction: 0.555", {"cached_fraction"}),
    ],
)
def test_loads_without_a_setting_are_told(load: str, lost: set[str]) -> None:
    text = TEXT.format(pools="{serve: {gpus: 8, ep: 8}}", engine="sglang", drafts=0)
    found = what_if(parse(text.replace("workload: {", f"workload: {{{load}, ")).scenario).lost
    assert {*found} == {"profile", *(f"workload.{key}" for key in lost)}
