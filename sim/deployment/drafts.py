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
