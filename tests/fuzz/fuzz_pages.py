"""Cases of what pages are given: uploads and addresses. Each ends in a value or in BadInput, whatever it holds."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fuzz_files import RECORDS
from fuzz_mutations import NUMBERS, SHAPES, TEXTS, broken_text, mutated

CASE: Final = {"id": "a", "metric": "tpot", "published": 1.5, "simulated": 2.0, "error": 0.3, "split": "test",
               "model": "m", "gpu": "g", "engine": "e", "layout": "l", "band": 0.2}  # fmt: skip
LONGEST: Final = 2000
"""Characters of a message that a page shows."""


def page(folder: Path, rng: random.Random, bases: list[str]) -> tuple[Callable[[], object], str]:
    """(what to try, its text) of one case."""
    from dashboard.data import scenarios, silicon, validations  # noqa: PLC0415 - streamlit takes a second
    from dashboard.settings import decode, scenario_of  # noqa: PLC0415

    kind = rng.choice(("scenario", "validation", "records", "address"))
    if kind == "scenario":
        text = mutated((folder / rng.choice(bases)).read_text(encoding="utf-8"), rng)
        return lambda: scenarios.upload(
            rng.choice(("a.yaml", "../../x", "")), text.encode(errors="replace")
        ), text
    if kind == "address":
        keys = rng.sample(sorted(decode("")), 3)
        text = ";".join(f"{key}:{rng.choice((*NUMBERS, *TEXTS))}" for key in keys)
        return lambda: scenarios.spell(scenario_of(decode(text))), text
    rows = [dict(CASE) for _ in range(3)] if kind == "validation" else json.loads(json.dumps(RECORDS))
    for _ in range(rng.choice((1, 2, 3))):
        rng.choice(rows)[rng.choice([*rows[0]])] = rng.choice((*NUMBERS, *TEXTS, *SHAPES))
    if kind == "records":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        text = broken_text(text, rng) if rng.random() < 0.3 else text
        return lambda: silicon.compare("h200_sxm/sglang", text.encode(errors="replace")), text
    text = json.dumps({"cases": rows})
    text = broken_text(text, rng) if rng.random() < 0.3 else text

    def drawn() -> None:
        cases = validations.read(text.encode(errors="replace"))
        for metric in cases.metric.unique():
            validations.headline(cases, metric)
            validations.scatter(cases, metric, "gpu")
            validations.errors(cases, metric)
        validations.scores(cases)

    return drawn, text
