"""Steps are priced when they are asked for, and cost the same in whatever order that is."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from even_routing import balanced_routing
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost, Latency
from sim.deployment.plan import deploy
from sim.frozen import Frozen
from sim.model.layout import Layout
from sim.model.operations import Operation
from sim.scenario.loading import parse
from sim.step.build import PoolPrices, build_step_cost
from sim.step.operations import StepOperations, StepOverlap
from sim.step.pricing import pool_step_cost

COST = AnalyticCost(gpu("h200_sxm"), efficiency())
SEQUENCES, TOKENS = 64, 4096


def _step(overlap: StepOverlap = StepOverlap()) -> StepOperations:  # noqa: B008 - frozen
    layout = Layout(
        model("deepseek-v3.2"), 16, 1, 16, 8, dense_prefill_max_kv=2048, dispatch_mode="low_latency"
    )
    return StepOperations(layout, balanced_routing(layout, 16), engine("sglang"), overlap=overlap)


STEPS = [_step(), _step(StepOverlap(two_batch=True, exchanging=0.9)), _step(StepOverlap(summed=True))]


@dataclass
class _Counted:
    """The roofline, and the shapes that it was asked for."""

    asked: Counter[str] = field(default_factory=Counter)

    def knows(self, operation: Operation) -> bool:
        return COST.knows(operation)

    def price(self, operation: Operation) -> Latency:
        self.asked[f"{operation.name} {operation.shape}"] += 1
        return COST.price(operation)


def test_nothing_is_priced_before_it_is_asked_for_and_then_only_what_lies_beside_it() -> None:
    cost = _Counted()
    table = build_step_cost({"prefill": STEPS[0], "decode": STEPS[0]}, cost, SEQUENCES, TOKENS)
    assert not cost.asked
    table.prefill.at(700, 3000.0)
    cores = [shape for shape in cost.asked if shape.startswith("sparse MLA core")]
    assert len(cores) == 4  # two numbers of tokens, two contexts
    before = cost.asked.total()
    table.prefill.at(701, 3001.0)
    assert cost.asked.total() == before


QUESTIONS = {
    "attention": lambda table, x, context, _: table.decode_table(x).attention(x, context),
    "decode at": lambda table, x, context, _: table.decode_table(x).at(x, context),
    "prefill at": lambda table, x, context, _: table.prefill.at(x * TOKENS // SEQUENCES, context),
    "line": lambda table, x, _, share: table.decode_table(x).line(x, x * share),
    "seconds": lambda table, x, _, share: table.prefill.seconds(x * 100, x * 100 * share, share),
    "shares": lambda table, x, context, share: table.prefill.shares(x + share, context).tolist(),
    "core": lambda table, x, context, _: (
        table.level(x).surface.core_s(np.array([x, 0.0]), np.array([context, 1.0])).tolist()
    ),
}
Asked = tuple[str, int, float]
asked = st.tuples(st.sampled_from([*QUESTIONS]), st.integers(1, SEQUENCES), st.floats(0, 1))


def _answer(table, question: Asked):
    what, x, share = question
    return QUESTIONS[what](table, x, 160_000.0**share, share)


@given(step=st.sampled_from(STEPS), questions=st.lists(asked, min_size=2, max_size=12), chance=st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_questions_changes_no_answer(step, questions, chance) -> None:
    shuffled = [*range(len(questions))]
    chance.shuffle(shuffled)
    one, other = (build_step_cost({"prefill": step, "decode": step}, COST, SEQUENCES, TOKENS) for _ in "12")
    answers = [_answer(one, question) for question in questions]
    again = {i: _answer(other, questions[i]) for i in shuffled}
    assert answers == [again[i] for i in range(len(questions))]


def test_pools_of_other_sizes_share_the_prices_of_the_same_steps() -> None:
    cost = _Counted()
    prices = PoolPrices({"prefill": STEPS[0], "decode": STEPS[0]}, {"prefill": cost, "decode": cost})
    small, large = prices.step_cost(64, 4096), prices.step_cost(128, 8192)
    loads = np.full(2, 32.0), np.full(2, 3000.0)
    small.decode_s(*loads)
    before = cost.asked.total()
    assert large.decode_s(*loads) == small.decode_s(*loads)
    assert cost.asked.total() == before


SERVICE = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {workers: 1, gpus: 8, tp: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 1}}
  lengths: {input: {constant: 1000}, output: {constant: 100}}
  requests: 1
price: {usd_per_gpu_hour: 2}
"""


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"workers": 3}, True),
        ({"max_sequences": 32}, True),
        ({"chunk_tokens": 4096}, True),
        ({"graph_tokens": 9}, False),
    ],
)
def test_what_decides_on_a_step_decides_on_its_price(change: dict[str, int], same: bool) -> None:
    one = deploy(parse(SERVICE, "service.yaml").scenario)
    other = replace(one, pools=Frozen({"serve": replace(one.pools["serve"], **change)}))
    surfaces = [pool_step_cost(deployment, "serve").prefill for deployment in (one, other)]
    assert (surfaces[0]._prices is surfaces[1]._prices) == same
