"""What is said of an engine's release: whose rules it has, and how published steps of it lay beside the priced ones."""

from collections.abc import Iterator
from typing import Final

from sim import catalog
from sim.catalog.releases import ALL, release_steps
from sim.deployment.device import gpu_of
from sim.scenario.schema import Scenario

SERVED: Final = ("deepseek-v3", "deepseek-v3.2")
"""Models whose steps are like those of the published services, which are R1's: by their names in the catalog, which
stand for R1 and V3.1, too."""


def release_notes(scenario: Scenario) -> Iterator[str]:
    """Says so where the engine's release is none that the catalog describes, and whose rules are taken; and how far
    published steps of the release are from the priced ones (of R1's family), of one that is not stated those of all."""
    asked, engine = scenario.engine_version, catalog.engine(scenario.engine).name
    if asked is not None and (taken := catalog.release_taken(scenario.engine, asked)):
        yield f"{scenario.engine} {asked} is not described; its rules of memory, CUDA graphs and drafts are {taken}"
    if catalog.model(scenario.model).name not in SERVED:
        return
    generation = gpu_of(scenario).generation
    if found := release_steps(engine, generation, asked):
        of = f"{engine} from {found.release} on"
        if found.release == ALL:
            why = (
                "engine_version is not stated"
                if asked is None
                else f"of {engine} {asked} too few services are known"
            )
            of = f"{why}: of all its known releases"
        yield (
            f"{of}, published steps of R1 services on {generation} took {found.middle:.2f} times what is priced "
            f"({found.low:.2f} to {found.high:.2f}, {found.layouts} layouts)"
        )
