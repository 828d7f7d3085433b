"""Which part of an anchor is kept, by the points that are left out."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from test_anchors import factors_of, point

from sim.cli.bench_tables import anchored
from sim.scenario.anchor import AnchorFile
from sim.validation.anchor_fit import Factors, Lines
from sim.validation.anchor_judged import JudgedAnchor, judged
from sim.validation.anchors import make_anchor


def judged_of(*points: tuple[float, float, float]) -> JudgedAnchor:
    """Of services whose steps take so many seconds in the simulation, measured at so many times that, and at so many
    times a TTFT of 0.2 s that no step is in."""

    def simulate(asked: Sequence[tuple[int, Factors]]) -> list[Mapping[str, float]]:
        return [
            {"tpot": points[i][0] * f.step_factor + f.step_constant_s, "ttft": 0.2 + f.ttft_added_s}
            for i, f in asked
        ]

    told = [{"tpot": step_s * tpot, "ttft": 0.2 * ttft} for step_s, tpot, ttft in points]
    return judged(Lines(told, simulate, fixed_s=0.05, shared=True), told, simulate)


def test_ttft_is_kept_where_the_points_contradict_each_other_in_tpot() -> None:
    """TTFT of 0.26 s twice where 0.2 s are simulated: scatter 0.2 x 0.26 = 52 ms, fixed part 50 ms wide: of the 60 ms
    2 / 52^2 / (2 / 52^2 + 1 / 50^2) = 0.649."""
    found = judged_of((0.010, 1.3, 1.3), (0.020, 0.75, 1.3))
    assert found.made.ttft_added_s == pytest.approx(0.649 * 0.06, rel=1e-3)
    assert found.made == Factors(ttft_added_s=found.made.ttft_added_s)
    assert [one["tpot"] for one in found.left_out] == pytest.approx([0.010, 0.020])
    [note] = found.notes
    assert note.startswith("TPOT's part is left out: left out in turn, points are ")
    assert note.endswith("28.2% without (medians)")  # 1 - 1 / 1.3 = 23.1%, 1 / 0.75 - 1 = 33.3%


def test_tpot_is_kept_where_the_points_contradict_each_other_in_ttft() -> None:
    found = judged_of((0.010, 1.2, 1.5), (0.020, 1.2, 0.7))
    assert found.made.step_factor > 1.1
    assert (found.made.prompt_factor, found.made.ttft_added_s) == (1.0, 0.0)
    [note] = found.notes
    assert note.startswith("TTFT's part is left out")


def test_what_contradicts_itself_in_both_changes_nothing() -> None:
    found = judged_of((0.010, 1.3, 1.5), (0.020, 0.75, 0.7))
    assert found.made == Factors() and found.after == found.left_out
    assert len(found.notes) == 2


def test_two_points_off_to_one_side_are_too_few_to_judge_and_a_third_judges() -> None:
    """Left out for the other, one is met by a factor that is far too large for it."""
    two = (0.010, 1.16, 1.3), (0.040, 1.04, 1.3)
    found = judged_of(*two)
    assert found.made.step_factor > 1.03
    [note] = found.notes
    assert note.startswith("two points are too few to judge TPOT's part, which is kept")
    found = judged_of(*two, (0.040, 1.03, 1.3))
    assert found.made.step_factor == 1.0 and found.made.ttft_added_s > 0
    [note] = found.notes
    assert note.startswith("TPOT's part is left out")


def test_a_constant_and_a_fixed_part_that_a_service_has_bring_every_figure_of_two_points_nearer(
    tmp_path: Path,
) -> None:
    """1.5 ms on every step are a sixth of TPOT at 1 in flight and 2.5% at 64: each point left out is met by the other's
    share. Factor and constant share what TPOT lacks by their widths; of the fixed part more than half is found."""
    truth = Factors(step_constant_s=1.5e-3, ttft_added_s=0.05)
    form = make_anchor([point(n, tmp_path, truth) for n in (1, 64)]).form
    for one in form.points:
        for metric in ("tpot", "ttft", "throughput"):
            told = one[metric]
            assert abs(told["anchored"] / told["measured"] - 1) < abs(
                told["simulated"] / told["measured"] - 1
            )
    assert factors_of(form).step_constant_s > 0.1e-3
    assert truth.ttft_added_s / 2 < form.ttft_added_s < truth.ttft_added_s
    said = shown(form)
    assert "Two points are too few to judge TPOT's part" in said and "changes nothing" not in said


def test_the_reason_told_is_the_true_one() -> None:
    nothing = AnchorFile(
        step_factor=1.0, step_constant_s=0.0, ttft_added_s=0.0, measured_on={}, points=[{}], version="1"
    )
    assert "No correction comes nearer" in shown(nothing)
    found = judged_of((0.010, 1.3, 1.5), (0.020, 0.75, 0.7))
    said = shown(nothing.model_copy(update={"notes": list(found.notes)}))
    assert "No correction comes nearer" not in said
    assert "The points contradict each other: the anchor changes nothing." in said
    assert "TPOT's part is left out" in said and "TTFT's part is left out" in said


def shown(form: AnchorFile) -> str:
    console = Console(width=400, record=True, file=StringIO())
    for part in anchored(form, Path("a.json")):
        console.print(part)
    return console.export_text()
