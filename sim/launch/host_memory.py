"""Host memory for the prefix cache, given as a multiple of the GPU's: how much that is, only the deployment tells."""

from sim.deployment.plan import deploy
from sim.launch.derived import Noted
from sim.launch.document import to_text
from sim.model.architecture import cache_bytes_per_token
from sim.scenario.errors import KeyPath
from sim.scenario.loading import parse
from sim.units import GB_BYTES

HOST: KeyPath = ("prefix_cache", "host_gb")


def with_host_memory(keys: dict[KeyPath, Noted], ratio: Noted | None, name: str) -> dict[KeyPath, Noted]:
    """The keys, which pass the check, with the host memory of a rank: `ratio` times the tokens that its GPUs hold."""
    if ratio is None:
        return keys
    data = {path: (noted.value, noted.why) for path, noted in keys.items()}
    deployment = deploy(parse(to_text((), data, ()), name).scenario)
    cache = deployment.prefix_cache
    if cache is None:
        return keys
    layout = deployment.pools[cache.role].layout
    token_bytes = cache_bytes_per_token(layout.model, layout.kv_cache, layout.mtp)
    tokens = cache.tiers[0].capacity_tokens / cache.ranks
    gb = round(ratio.value * tokens * token_bytes / GB_BYTES, 1)
    noted = Noted(gb, f"{ratio.why}: {ratio.value:g} times the {tokens:,.0f} tokens of a rank", ratio.place)
    found: dict[KeyPath, Noted] = {}
    for path, value in keys.items():
        found[path] = value
        if path == ("prefix_cache", "scope"):
            found[HOST] = noted
    return found
