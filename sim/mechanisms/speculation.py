"""What drafts (multi-token prediction) gain, and at which batch they stop gaining."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from sim import catalog
from sim.deployment.plan import Deployment, resolve
from sim.scenario.schema import Scenario
from sim.step.prices import Prices
from sim.step.pricing import cost_model, step_operations
from sim.step.surface import Floats, Surface


def accept_length(deployment: Deployment) -> float:
    """Tokens per decode step and sequence: 1 and the drafts that are accepted on average.

    Raises UnknownName where nobody published how many are.
    """
    found = deployment.drafts.accept_length()
    if found is None:
        expected = ("a model of which one is published",)
        raise catalog.UnknownName("accept length", deployment.model.name, expected)
    return found


def speculation_gain(
    scenario: Scenario, drafts: Sequence[int], batches: Sequence[int], context: float
) -> pd.DataFrame:
    """Tokens per second of a decode rank with drafts over without, by batch.

        gain = A_k T_0(b) / T_k(b)

    A_k: tokens per step with k drafts (accept length), T_k(b): seconds of a step that verifies them for b sequences.
    Columns: draft_tokens, batch, accept_length, step_s, gain.
    """
    plain = _steps_s(resolve(_drafting(scenario, 0), "decode"), batches, context)
    tables = []
    for k in drafts:
        mine = resolve(_drafting(scenario, k), "decode")
        accepted, seconds = accept_length(mine), _steps_s(mine, batches, context)
        tables.append(
            pd.DataFrame(
                {
                    "draft_tokens": k,
                    "batch": batches,
                    "accept_length": accepted,
                    "step_s": seconds,
                    "gain": accepted * plain / seconds,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _drafting(scenario: Scenario, draft_tokens: int) -> Scenario:
    speculation = scenario.speculation.model_copy(update={"draft_tokens": draft_tokens})
    return scenario.model_copy(update={"speculation": speculation})


def _steps_s(deployment: Deployment, batches: Sequence[int], context: float) -> Floats:
    step = step_operations(deployment, "decode")
    load, at = np.array(batches, dtype=float), np.array([context])
    surface = Surface(
        np.unique(load),
        np.array([context, context + 1]),
        Prices(step.decode_attention, step.decode_rest, cost_model(deployment, "decode"), step.overlap),
    )
    return np.array([surface.step_s(surface.core_s(b, at), b) for b in load[:, None]])
