"""What is said of an engine's release: whose rules it has, and how published steps of it lay beside the priced ones."""

from collections.abc import Iterator

from sim import catalog
from sim.catalog.releases import ALL, release_steps
from sim.deployment.device import gpu_of
from sim.scenario.schema import Scenario


def release_notes(scenario: Scenario) -> Iterator[str]:
    """Says so where the engine's release is none that the catalog describes, and whose rules are taken; and how far
    published steps of the release are from the priced ones, of one that is not stated those of all."""
    asked, engine = scenario.engine_version, catalog.engine(scenario.engine).name
    if asked is not None and (taken := catalog.release_taken(scenario.engine, asked)):
        yield f"{scenario.engine} {asked} is not described; its rules of memory, CUDA graphs and drafts are {taken}"
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
            f"{of}, published steps on {generation} took {found.middle:.2f} times what is priced ({found.low:.2f} to "
            f"{found.high:.2f}, {found.layouts} layouts of R1)"
        )
