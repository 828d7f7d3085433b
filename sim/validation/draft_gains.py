"""What multi-token prediction gains: published and simulated side by side (cases in draft_gains.yaml).

python -m sim.validation.draft_gains
"""

from functools import cache
from importlib import resources
from typing import Any

import pandas as pd
import yaml

from sim.mechanisms import speculation_gain
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario


@cache
def cases() -> tuple[dict[str, Any], ...]:
    """The published cases: name, published (gain by drafts), batch, context, scenario, source and note."""
    text = resources.files("sim.validation").joinpath("draft_gains.yaml").read_text(encoding="utf-8")
    return tuple(yaml.safe_load(text)["cases"])


def case_scenario(case: dict[str, Any]) -> Scenario:
    """The scenario of a case."""
    return parse(yaml.safe_dump(case["scenario"]), f"{case['name']}.yaml").scenario


def draft_gains() -> pd.DataFrame:
    """Columns: case, drafts, batch (sequences per attention-DP rank), accept_length, published, simulated, error."""
    rows = []
    for case in cases():
        drafts = list(case["published"])
        table = speculation_gain(case_scenario(case), drafts, [case["batch"]], case["context"])
        for here in table.itertuples():
            published = case["published"][here.draft_tokens]
            rows.append(
                {
                    "case": case["name"],
                    "drafts": here.draft_tokens,
                    "batch": case["batch"],
                    "accept_length": here.accept_length,
                    "published": published,
                    "simulated": here.gain,
                    "error": here.gain / published - 1,
                }
            )
    return pd.DataFrame(rows)


def main() -> None:
    """Print the table."""
    with pd.option_context("display.width", 160, "display.max_columns", 20, "display.precision", 3):
        print(draft_gains().to_string(index=False))


if __name__ == "__main__":
    main()
