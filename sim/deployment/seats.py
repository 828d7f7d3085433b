"""How many sequences an attention-DP rank runs at most, and who says so."""

from sim.catalog import Engine, Gpu, launch_defaults
from sim.scenario.schema import Pool


def seats_of(
    pool: Pool, role: str, engine: Engine, gpu: Gpu, drafts: int, compressed: bool = False
) -> tuple[int, str]:
    """Running sequences of a rank, and where they come from: the scenario's key, or the engine as it is shipped.

    A pool of prompts decodes nothing; its number only enters reserves that do not look at the role.
    """
    if pool.max_batch_per_rank:
        return pool.max_batch_per_rank, "max_batch_per_rank"
    if pool.max_batch_per_gpu:
        return pool.max_batch_per_gpu * pool.tp, "max_batch_per_gpu"
    shipped = launch_defaults(engine.name, engine.release)
    if role == "prefill":
        return int(shipped.get("prompt_seats")) * pool.tp, "decodes nothing"
    why = f"{engine.name} {engine.release} as shipped"
    of_model = shipped.get("seats_compressed") if compressed else None
    if of_model is not None:
        return max(1, int(of_model) * pool.tp // pool.gpus), f"{why}, of a model with compressed entries"
    drafted = shipped.get("seats_with_drafts") if drafts else None
    if drafted is not None:
        return max(1, int(drafted) * pool.tp // pool.gpus), f"{why}, with drafts"
    return shipped.by_memory("seats", gpu), why
