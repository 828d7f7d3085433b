"""Simulated cost curves of V3.1 and V3.2 on H800 against the published ones (DeepSeek-V3.2-Exp report, figure 3)."""

import pytest

from sim.catalog import acceptance
from sim.cost.latency import price_all
from sim.deployment.plan import resolve
from sim.scenario.step import Speculation
from sim.step.pricing import cost_model, step_operations
from sim.validation.position_curves import cases, cost_at, curve_scenario, ids, intercepts, settings, slopes


def test_published_slopes_are_those_of_the_figure() -> None:
    published = slopes()[slopes().main].set_index(["model", "phase"]).published
    # USD per million tokens per million positions: (0.6658 - 0.0529) / 0.131072, and so on.
    assert published["deepseek-v3.1", "prefill"] == pytest.approx(4.676, abs=1e-3)
    assert published["deepseek-v3.2", "prefill"] == pytest.approx((0.1871 - 0.0999) / 0.124472, rel=1e-3)
    assert published["deepseek-v3.1", "decode"] == pytest.approx((2.154 - 0.0705) / 0.131072, rel=1e-3)
    assert published["deepseek-v3.2", "decode"] == pytest.approx((0.2274 - 0.1457) / 0.09954, rel=1e-3)
    # 28.6 ns of an H800 per key and token at 2 USD an hour.
    assert published["deepseek-v3.1", "decode"] * 1e-12 / (2 / 3600) == pytest.approx(28.6e-9, rel=1e-3)


@pytest.mark.parametrize("batch", [64, 88, 128])
def test_the_slope_of_every_curve_is_within_fifteen_percent(batch: int) -> None:
    """MTP with one draft accepted at 80%: 1.8 tokens per step. Sequences per GPU around those of the 24 hours."""
    main = slopes(batch)[slopes(batch).main]
    assert len(main) == 4
    for row in main.itertuples():
        assert abs(row.error) <= 0.15, (row.model, row.phase, row.error)


def test_cost_at_a_position_by_hand() -> None:
    """2 USD per 3,600 s, 88 sequences and 1.8 tokens each per step."""
    scenario = curve_scenario("deepseek-v3.1")
    step = step_operations(resolve(scenario, "decode"), "decode")
    operations = step.decode_attention(88, 4096) + step.decode_rest(88)
    seconds = sum(p.total_s for p in price_all(operations, cost_model(resolve(scenario), "decode")))
    assert cost_at(scenario, "decode", [4096], 88)[0] == pytest.approx(2 / 3600 * seconds / (1.8 * 88) * 1e6)
    assert settings()["batch"]["decode"] == 88


def test_hiding_the_exchange_is_cheaper_and_brings_prefill_to_the_published_cost() -> None:
    first = intercepts().set_index(["model", "phase"])
    assert (first.hidden < first.simulated).all()
    assert (first.cheapest <= first.hidden).all()
    for model in ("deepseek-v3.1", "deepseek-v3.2"):
        assert first.hidden[model, "prefill"] == pytest.approx(first.published[model, "prefill"], rel=0.25)


def test_every_piece_is_a_case_of_its_own() -> None:
    [one] = cases(["CURVE-v3.1-decode-0"])
    row = slopes().query("model == 'deepseek-v3.1' and phase == 'decode'").iloc[0]
    assert (one.published, one.simulated, one.phase) == (row.published, row.simulated, "decode")
    assert len(ids()) == len(set(ids())) == len(slopes())


def test_drafts_without_acceptance_are_the_catalogs_and_not_none() -> None:
    """A decode step that verifies a draft yields more than one token whoever says how often it is accepted."""
    plain = curve_scenario("deepseek-v3.1")
    asked = plain.model_copy(update={"speculation": Speculation(draft_tokens=1)})
    [said] = acceptance("deepseek-v3.1", 1)
    told, own = (cost_at(one, "decode", [4096], 88)[0] for one in (plain, asked))
    assert own == pytest.approx(told * 1.8 / (1 + said))
