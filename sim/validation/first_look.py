"""Writes `first_look.json`, the shipped result of validating everything that is published here.

    python -m sim.validation.first_look

It is the JSON of `tokenworks validate`, small enough to ship: rounded, without scores by layout and the
compositions of steps, and without the rows that no aggregated simulation is for.
"""

import json
from pathlib import Path
from typing import Any, Final

from sim.validation.rows import read_rows
from sim.validation.table import SHIPPED, Validation, validate

FILE: Final = Path(__file__).with_name("first_look.json")
DIGITS: Final = 4
"""Significant digits of every number."""


def brief(found: Validation, kept: set[str]) -> dict[str, Any]:
    """The result without what takes most of its room; of the skipped rows those in `kept`."""
    data: dict[str, Any] = rounded(found.json())
    del data["compositions"], data["layouts"]
    data["skipped"] = [one for one in data["skipped"] if one["id"] in kept]
    return data


def rounded(value: Any) -> Any:
    """The same JSON with every float at `DIGITS` significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return [rounded(one) for one in value] if isinstance(value, list) else value


def main() -> None:
    """Validate all that is shipped, which takes about a minute and a half, and write the file."""
    rows = read_rows(SHIPPED)
    kept = {row.id for row in rows if not row.disaggregated and row.spec == "none"}
    data = brief(validate(SHIPPED, points=True), kept)
    FILE.write_text(json.dumps(data, allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
