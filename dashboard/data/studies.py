"""One step, and the mechanisms behind it: tables of `sim`, drawn and kept."""

from collections.abc import Mapping
from typing import Any, Final, cast

import streamlit as st

from dashboard.data.problems import said
from dashboard.data.scenarios import scenario
from sim import mechanisms
from sim.explain import explain
from sim.mechanisms.attention import reference
from sim.model.layout import Phase
from sim.report import mechanisms as drawn
from sim.report import step as steps
from sim.report.look import Chart
from sim.scenario.schema import Experts, Scenario

RELEASES: Final = ("deepseek-v3.1", "deepseek-v3.2")
"""Dense and sparse attention in otherwise the same model."""
POSITIONS: Final = (0, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 98304, 131072)
CONTEXTS: Final = (512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072)
BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
TOKENS: Final = (1, 4, 16, 64, 256, 1024, 4096)
RANKS: Final = (8, 16, 32, 64, 128, 256)
DRAFTS: Final = (1, 2, 3)
GPUS_PER_NODE: Final = 8


@st.cache_resource(max_entries=128, show_spinner="Computing")
@said
def step(text: str, phase: str, batch: int | None, context: int | None) -> dict[str, Any]:
    """One step of a scenario, as `tokenworks explain --json` gives it."""
    return explain(scenario(text), cast(Phase, phase), batch, context).json()


def waterfall(explained: Mapping[str, Any], by: str) -> Chart:
    """The step, operation by operation, coloured by `bound`, `priced_by` or `group`."""
    return steps.waterfall_chart(explained, by)


def shares(explained: Mapping[str, Any]) -> Chart:
    """The step in shares."""
    return steps.shares_chart(explained)


@st.cache_resource(show_spinner="Computing")
def cache() -> Chart:
    """Bytes per cached token by model and format."""
    return drawn.cache_chart(mechanisms.cache_bytes())


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def position(phase: str, batch: int, drafts: int) -> Chart:
    """Price of a token by position on DeepSeek's own deployment, the published line behind."""
    table = mechanisms.cost_by_position(RELEASES, cast(Phase, phase), POSITIONS, batch, drafts)
    return drawn.position_chart(table, mechanisms.published_cost(), phase)


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def attention(phase: str, gpu: str, batch: int) -> Chart:
    """Attention of one step by context, in parts."""
    return drawn.parts_chart(
        mechanisms.attention_parts(_on(gpu), RELEASES, cast(Phase, phase), CONTEXTS, batch)
    )


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def imbalance(ep: int, sigma: float, redundant: int, rho: float) -> Chart:
    """Load of the busiest GPU with and without balancing."""
    experts = Experts(popularity_sigma=sigma, redundant=redundant, staleness_rho=rho)
    return drawn.imbalance_chart(mechanisms.expert_imbalance(RELEASES[1], ep, GPUS_PER_NODE, experts, TOKENS))


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def nodes(limit: int) -> Chart:
    """Nodes that a token reaches by size of the EP group."""
    return drawn.nodes_chart(mechanisms.nodes_touched(RELEASES[1], GPUS_PER_NODE, RANKS, limit))


@st.cache_resource(max_entries=64, show_spinner="Computing")
@said
def speculation(gpu: str, context: int) -> Chart:
    """What drafts gain by batch."""
    return drawn.speculation_chart(mechanisms.speculation_gain(_on(gpu), DRAFTS, BATCHES, context))


def _on(gpu: str) -> Scenario:
    """DeepSeek's own deployment, on another GPU."""
    return reference().model_copy(update={"gpu": gpu})
