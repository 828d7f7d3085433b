"""The chances of a scenario's drafts: given, or the catalog's for its model, task and thinking mode."""

from sim import catalog
from sim.scenario.schema import Scenario


def draft_chances(scenario: Scenario) -> tuple[float, ...]:
    """Chance that draft i is accepted given that all before it were, one for each draft token.

    Raises UnknownName where no accept length is published for what the scenario asks.
    """
    asked = scenario.speculation
    if asked.acceptance is not None:
        return asked.acceptance[: asked.draft_tokens]
    return catalog.acceptance(scenario.model, asked.draft_tokens, asked.task, asked.thinking)


def accept_length(scenario: Scenario, verified: int | None = None) -> float:
    """Mean tokens per decode step and sequence: 1, and the accepted ones of the first `verified` drafts (None: of all).

    Raises UnknownName as above.
    """
    drafts = scenario.speculation.draft_tokens if verified is None else verified
    return catalog.accept_length(draft_chances(scenario)[:drafts]) if drafts else 1.0
