"""A price that was given for one GPU, and a GPU that was put in its place on top of it."""

from collections.abc import Iterator

from sim.scenario.errors import KeyPath
from sim.scenario.loading import LoadedScenario
from sim.scenario.tree import find

PRICE: KeyPath = ("price", "usd_per_gpu_hour")


def price_of_another_gpu(loaded: LoadedScenario) -> Iterator[str]:
    """Where `gpu` is written in a layer above that of the price: an override above files, a file above what it
    extends."""
    usd = loaded.scenario.price.usd_per_gpu_hour
    if usd is None:
        return
    given, chosen = _layer(loaded, PRICE), _layer(loaded, ("gpu",))
    if given is not None and chosen is not None and chosen < given:
        gpu = loaded.scenario.gpu
        yield (
            f"price.usd_per_gpu_hour: ${usd:,.2f}, given beside another GPU, stands for {gpu}, too; its own: "
            f"--set price.usd_per_gpu_hour=USD, or --set price.usd_per_gpu_hour=null for the catalog's"
        )


def _layer(loaded: LoadedScenario, key: KeyPath) -> int | None:
    """0 for an override, then the file asked for, then what it extends; None where the key is not written."""
    path, node = find(loaded.tree, key)
    if tuple(path) != key:
        return None
    sources = [*loaded.sources]
    return 1 + sources.index(node.place.file) if node.place.file in sources else 0
