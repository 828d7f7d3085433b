"""What one point of a deployment gains on its others, and why an anchor is of one release."""

import json
from statistics import median

from sim.validation.anchor_gain import KINDS, deployments, evenly, gain, table
from sim.validation.anchor_gain import point as point_of
from sim.validation.digest import FILE as DIGEST
from sim.validation.digest import cases_of
from sim.validation.errors import grouped
from sim.validation.rows import Row, read_rows
from sim.validation.scenarios import settings_of
from sim.validation.split import split_of
from sim.validation.table import SHIPPED


def release_of(row: Row) -> str | None:
    version: str | None = settings_of(row).get("engine_version")
    return version


def test_what_an_anchor_gains_is_measured_on_other_rows_of_a_layout() -> None:
    """Two points of a layout of the test half: the command's own path, from rows to the table."""
    [(name, rows)] = deployments("test", "aggregated", 2, ["b200 trt fp4 8 GPUs EP1"]).items()
    found = gain(name, rows)
    assert len({point_of(row) for row in rows}) == len(rows) == 2
    found_all = deployments("test", "aggregated", 9, [])
    assert all(len({release_of(row) for row in group}) == 1 for group in found_all.values())
    assert found.rows == 1 and len(found.before["tpot"]) == len(found.after["tpot"]) == 1
    assert f"| {name} | 1 |" in table([found])
    assert evenly(10, 4) == [0, 3, 6, 9] and evenly(3, 4) == [0, 1, 2]


def test_what_one_point_lacks_says_nothing_of_another_release() -> None:
    """Aggregated rows of the training half as they stand in the digest, every one as if it lacked what another point of
    its layout lacks. Of a layout's medians more come nearer than go further off within a release, none from others."""
    cases = cases_of(json.loads(DIGEST.read_text(encoding="utf-8")))
    off = {case.id: case.simulated / case.published for case in cases if case.metric == "tpot"}
    rows = [
        (row.layout, point_of(row), release_of(row), off[row.id])
        for row in read_rows(SHIPPED)
        if row.id in off and split_of(row.deployment_id) == "train" and KINDS["aggregated"](row)
    ]
    nearer: dict[bool, list[bool]] = {True: [], False: []}
    for layout in grouped(rows, lambda row: row[0]).values():
        for same, found in nearer.items():
            pairs = [
                (abs(here - 1), abs(here / there - 1))
                for _, point, release, here in layout
                for _, other, its_release, there in layout
                if point != other and (release == its_release) is same
            ]
            if pairs:
                before, after = (median(one) for one in zip(*pairs, strict=True))
                found.append(after < before)
    assert sum(nearer[True]) > len(nearer[True]) / 2
    assert len(nearer[False]) == 7 and not any(nearer[False])
