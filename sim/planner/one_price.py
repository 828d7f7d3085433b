"""One price of a GPU-hour that stands for several GPUs: it can be meant, and it can decide the answer unseen."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from sim.planner.question import Question
from sim.scenario.schema import Price

GIVEN = ("usd_per_gpu_hour", "hours")
"""Keys of `price` that give a GPU-hour itself; a tier is each GPU's own."""


def one_price(gpus: Collection[str], price: Price, instead: str) -> Iterator[str]:
    """Where several GPUs cost the same only because one price was given; `instead`: how to give each its own."""
    names = list(dict.fromkeys(gpus))
    key = next((key for key in GIVEN if getattr(price, key) is not None), None)
    if key is not None and len(names) > 1:
        usd = "" if price.usd_per_gpu_hour is None else f" (${price.usd_per_gpu_hour:,.2f})"
        yield f"price.{key}{usd} stands for a GPU-hour of each of {', '.join(names)}; {instead}"


def shared_price(question: Question) -> Iterator[str]:
    """The same of a plan: GPUs whose entry under `search` brings no price of its own."""
    gpus = [_name(entry) for entry in question.varied["gpu"] if not _priced(entry)]
    entries = ", ".join(f"{{gpu: {name}, price.usd_per_gpu_hour: USD}}" for name in dict.fromkeys(gpus))
    instead = f"to give each its own: search: {{gpu: [{entries}]}}"
    tried = {key.removeprefix("price."): values for key, values in question.varied.items()}
    for key in GIVEN:
        if key in tried and len(set(gpus)) > 1:
            yield f"search.price.{key}: each of them is tried with each of {', '.join(dict.fromkeys(gpus))}; {instead}"
            return
    if "tier" not in tried:
        yield from one_price(gpus, question.loaded.scenario.price, instead)


def _name(entry: Any) -> str:
    return str(entry["gpu"] if isinstance(entry, Mapping) else entry)


def _priced(entry: Any) -> bool:
    return isinstance(entry, Mapping) and any(key.startswith("price.") for key in entry)
