"""The committed split: which deployments constants may be fitted on, and which only judge them."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import pandas as pd

FILE: Final = Path(__file__).parent / "data" / "split.csv"


@cache
def split() -> Mapping[str, str]:
    """deployment_id -> `train` or `test`."""
    table = pd.read_csv(FILE, comment="#", dtype=str)
    return dict(zip(table["deployment_id"], table["split"], strict=True))


def split_of(deployment_id: str) -> str | None:
    """`train`, `test`, or None for a deployment that is not in the committed split."""
    return split().get(deployment_id)
