"""Names as people write them -> as the catalog does: of vendors, of the Hugging Face Hub, in any case."""

from sim import catalog


def engine_name(value: object) -> object:
    """The catalog's name of an engine, whatever its case or alias; anything else is left to the type's own check."""
    name = value.lower() if isinstance(value, str) else value
    return catalog.aliases("engine").get(name, name) if isinstance(name, str) else value


def release_name(value: object) -> object:
    """A model's name without its organisation on the Hub."""
    return catalog.release(value) if isinstance(value, str) else value
