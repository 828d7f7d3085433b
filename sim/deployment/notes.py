"""What every answer says about a scenario, whatever was asked."""

from collections.abc import Iterator

from sim.deployment.anchored import anchor_notes
from sim.deployment.profile_choice import profile_notes
from sim.deployment.released import release_notes
from sim.deployment.slips import slips
from sim.scenario.schema import Scenario


def scenario_notes(scenario: Scenario) -> Iterator[str]:
    """Sentences for the user: an engine's release that nobody described, whose measurements price it all, one's own
    that adjust the price, and what may not be meant."""
    yield from release_notes(scenario)
    yield from profile_notes(scenario)
    yield from anchor_notes(scenario)
    yield from slips(scenario)
    if scenario.metrics == "summary":
        yield (
            "metrics: a summary is kept, and no row of any request: percentiles within 0.3%, intervals roughly; no "
            "requests.parquet (histograms.parquet instead) and no timeline"
        )
