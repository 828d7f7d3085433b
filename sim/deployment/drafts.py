"""The drafts of a scenario: how many, at which batch, and the chances that they are accepted."""

from dataclasses import dataclass

from sim import catalog
from sim.catalog import Model
from sim.scenario.schema import Scenario


@dataclass(frozen=True, slots=True)
class Drafts:
    """What the model's modules propose in a decode step."""

    tokens: int
    """Drafts per step, at most where there are `levels`; 0: none."""
    chances: tuple[float, ...] | None
    """Chance that draft i is accepted given that all before it were; None where nobody published any."""
    levels: tuple[tuple[int, int], ...] = ()
    """(largest batch of the fullest rank, drafts), rising; beyond the last none. Empty: always `tokens`."""

    def accept_length(self, tokens: int | None = None) -> float | None:
        """Tokens per decode step and sequence with so many drafts (None: all); None where nobody knows."""
        drafts = self.tokens if tokens is None else tokens
        if not drafts:
            return 1.0
        return None if self.chances is None else catalog.accept_length(self.chances[:drafts])


def drafts_of(scenario: Scenario) -> Drafts:
    """The scenario's drafts. That somebody knows how many are accepted is for `sim.deployment.checks` to ask."""
    asked = scenario.speculation
    levels = tuple((level.up_to_batch, level.draft_tokens) for level in asked.adaptive or ())
    try:
        return Drafts(asked.draft_tokens, draft_chances(scenario), levels)
    except catalog.UnknownName:
        return Drafts(asked.draft_tokens, None, levels)


def draft_chances(scenario: Scenario) -> tuple[float, ...]:
    """Chance that draft i is accepted given that all before it were, one for each draft token: given, or the catalog's
    for the scenario's model, task and thinking mode.

    Raises UnknownName where no accept length is published for what the scenario asks.
    """
    asked = scenario.speculation
    if asked.acceptance is not None:
        return asked.acceptance[: asked.draft_tokens]
    return catalog.acceptance(scenario.model, asked.draft_tokens, asked.task, asked.thinking, asked.method)


def drafting_model(scenario: Scenario) -> Model:
    """The scenario's model with the modules that make its drafts. Raises what `catalog.model` raises."""
    model = catalog.model(scenario.model)
    return model.with_block_drafts() if scenario.speculation.method == "dspark" else model
