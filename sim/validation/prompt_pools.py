"""What pools of prompts computed in published services, over the most that they can compute here.

    python -m sim.validation.prompt_pools

Of the training half's disaggregated rows, by kind of prompt pool. Pools that are full reach nearly 1; a kind that stays
far below, wherever it was measured, is priced too fast. `prompt_pool_experts` of `sim/catalog/engines` rests on it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from sim.deployment.plan import resolve
from sim.explain import explain
from sim.scenario.errors import DeploymentError
from sim.validation.errors import grouped
from sim.validation.recipes import recipes
from sim.validation.rows import Row, read_rows
from sim.validation.scenarios import draft_counts, scenario_of, settings_of
from sim.validation.skips import skipped
from sim.validation.split import split_of
from sim.validation.table import SHIPPED

FILE: Final = Path(__file__).with_suffix(".yaml")


@cache
def full() -> float:
    """Share of what it can compute that a pool reaches whose ranks wait for one another."""
    return float(yaml.safe_load(FILE.read_text(encoding="utf-8"))["full"]["value"])


@dataclass(frozen=True, slots=True)
class PromptPool:
    """A kind of prompt pool, per GPU."""

    name: str
    published: float
    """Most prompt tokens per second of its rows."""
    here: float
    """Most that are priced, with experts as their table says."""
    factor: float
    """On the experts' table, with which `full` of the priced most would be published."""


def mean_tokens(longest: int) -> float:
    """Mean length of prompts whose longest is told."""
    return longest * (1 + float(recipes()["benchmark"]["length_from"]["value"])) / 2


def published_rate(row: Row) -> float:
    """Prompt tokens per second and GPU of the prompt pool; 0 where no throughput is published."""
    prompts, answers = row.pools["prefill"], row.pools["decode"]
    here, there = prompts.workers * prompts.gpus, answers.workers * answers.gpus
    if total := row.published.get("total_tput_per_gpu"):
        return total.value * (here + there) * row.isl / (row.isl + row.osl) / here
    if output := row.published.get("output_tput_per_gpu"):
        return output.value * there * row.isl / row.osl / here
    return 0.0


def priced(row: Row) -> tuple[float, float]:
    """Seconds per prompt token and GPU of a full step of the row's prompt pool, and those of its experts' table."""
    scenario = scenario_of(row, row.conc, max(draft_counts(row)))
    length = round(mean_tokens(row.isl))
    count = max(1, resolve(scenario).pools["prefill"].chunk_tokens // length)
    whole, one = (explain(scenario, "prefill", tokens) for tokens in (count * length, length))

    def attention_s(step: Any) -> float:
        return float(sum(p.total_s for p in step.operations if p.operation.group == "attention"))

    experts_s = sum(p.total_s / p.operation.in_situ for p in whole.operations if p.operation.kernel == "moe")
    raised_s = sum(p.total_s for p in whole.operations if p.operation.kernel == "moe")
    # Prompts of one step attend to themselves alone.
    step_s = whole.step_s - attention_s(whole) + count * attention_s(one) - raised_s + experts_s
    tokens = count * length / row.pools["prefill"].tp
    return step_s / tokens, experts_s / tokens


def pools(rows: Sequence[Row]) -> Iterator[PromptPool]:
    """Every kind of prompt pool whose experts are a kernel of their own, from the row that computed most."""
    for name, mine in grouped(rows, _kind).items():
        row = max(mine, key=published_rate)
        if not (rate := published_rate(row)):
            continue
        try:
            token_s, experts_s = priced(row)
        except DeploymentError:
            continue
        if experts_s:
            yield PromptPool(name, rate, 1 / token_s, 1 + (full() / rate - token_s) / experts_s)


def _kind(row: Row) -> str:
    shape, said = row.pools["prefill"], settings_of(row, "prefill")
    experts = said.get("moe_backend") or "experts by default"
    return (
        f"{row.hardware} {row.engine} {row.precision} {shape.gpus} GPUs {shape} {row.isl} tokens, {experts}"
    )


def main() -> None:
    """Print them."""
    rows = read_rows(SHIPPED)
    left_out = skipped(rows)
    mine = [
        row
        for row in rows
        if row.disaggregated and row.id not in left_out and split_of(row.deployment_id) == "train"
    ]
    for pool in sorted(pools(mine), key=lambda pool: pool.name):
        share = pool.published / pool.here
        print(
            f"{pool.name}: {pool.published:,.0f} of {pool.here:,.0f} tokens/s, {share:.2f}; factor {pool.factor:.2f}"
        )


if __name__ == "__main__":
    main()
