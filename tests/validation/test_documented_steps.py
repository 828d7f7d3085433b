"""The tables of single steps in the documents say what the committed digest says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DIGEST = ROOT / "sim" / "validation" / "digest.json"
SINGLE = ("gain", "speedup", "slope", "prefill_tput_per_node", "decode_tput_per_node")
ROUNDED = 0.005
TOLD = {"experts.md": r"P0\d+", "drafts.md": r"MTP\d-\d", "indexer.md": r"CURVE-.*"}


def digested(form: str) -> list[dict[str, Any]]:
    cases = json.loads(DIGEST.read_text(encoding="utf-8"))["cases"]
    return [case for case in cases if case["metric"] in SINGLE and re.fullmatch(form, case["id"])]


def numbers(page: str) -> list[float]:
    """Of the cells of the page's tables, several in one parted by a stroke."""
    lines = (ROOT / "docs" / page).read_text(encoding="utf-8").splitlines()
    cells = re.split(r"[|/]", "".join(line for line in lines if line.startswith("|")))
    return [float(n) for cell in cells if re.fullmatch(r"-?\d+(\.\d+)?", n := cell.strip().replace(",", ""))]


@pytest.mark.parametrize("page", TOLD)
def test_single_steps_are_told_as_they_were_simulated_last(page: str) -> None:
    told, cases = numbers(page), digested(TOLD[page])
    assert len(cases) > 5
    lost = [case["id"] for case in cases if pytest.approx(case["simulated"], rel=ROUNDED) not in told]
    assert lost == []
