"""What the catalog says of prices: a GPU-hour by tier, and the public prices of a million tokens."""

import pytest
from priced_runs import SERVED, SPLIT, price, record

from sim import catalog
from sim.api_prices import api_prices
from sim.price import gpu_hour
from sim.report.tables import PRICES, USD, api_table
from sim.scenario.schema import Price


def test_default_overhead_comes_from_the_catalog() -> None:
    paid = price(record(SPLIT, SERVED, price={"usd_per_gpu_hour": 2.0}))
    assert paid.overhead_fraction == 0.05
    assert paid.usd_per_hour == pytest.approx(128 * 1.05)


def test_racks_where_the_tier_sells_racks() -> None:
    assert gpu_hour(catalog.gpu("gb200"), Price(tier="own_neocloud")).unit_gpus == 72
    assert gpu_hour(catalog.gpu("gb200"), Price(tier="on_demand_low")).unit_gpus == 4
    assert gpu_hour(catalog.gpu("h200"), Price(tier="own_neocloud")).unit_gpus == 8


def test_every_price_names_its_tier() -> None:
    cost = price(record(SPLIT, SERVED, price={})).json()
    assert (cost["tier"], cost["usd_per_gpu_hour"], cost["as_of"]) == ("rent_3yr", 2.05, "2026-07")
    assert cost["source"].startswith("SemiAnalysis")
    assert price(record(SPLIT, SERVED)).json()["tier"] == "given"


def test_tiers() -> None:
    assert (
        gpu_hour(catalog.gpu("h800"), Price()).usd == 2.0
    )  # DeepSeek's own assumption; the only tier of the H800
    assert gpu_hour(catalog.gpu("h100"), Price(tier="on_demand_hyperscaler")).usd == 6.88
    with pytest.raises(catalog.UnknownName, match="rent_3yr"):
        gpu_hour(catalog.gpu("h100"), Price(tier="rent_3y"))
    with pytest.raises(catalog.UnknownName, match="usd_per_gpu_hour"):
        gpu_hour(catalog.gpu("h20"), Price())


def test_public_prices_of_v32() -> None:
    """DeepSeek: $0.028 hit, $0.28 miss, $0.42 output from 2025-09-29."""
    first = api_prices("deepseek-v3.2").iloc[0]
    assert first["official"] and first["provider"] == "DeepSeek"
    assert first["input_cache_hit_usd_per_million"] == 0.028
    assert first["input_cache_miss_usd_per_million"] == 0.28
    assert first["output_usd_per_million"] == 0.42


def test_public_prices_follow_the_release_that_was_named() -> None:
    """V3.1: 0.07 / 0.56 / 1.68; V3: 0.07 / 0.27 / 1.10; both are one architecture."""
    assert api_prices("deepseek-v3.1").iloc[0]["output_usd_per_million"] == 1.68
    assert api_prices("DeepSeek-V3").iloc[0]["output_usd_per_million"] == 1.10
    assert api_prices("qwen3-235b").empty
    with pytest.raises(catalog.UnknownName):
        api_prices("gpt")


def test_every_public_price_has_source_and_date() -> None:
    v3 = ("deepseek-v3", "deepseek-v3.1", "deepseek-v3.2", "deepseek-r1", "deepseek-r1-0528")
    for model in (*v3, "deepseek-v4-flash", "deepseek-v4-pro-0813"):
        rows = api_prices(model)
        assert len(rows) > 5
        assert rows["source"].str.len().min() > 0
        assert rows["as_of"].str.match(r"20\d\d-\d\d").all()
        assert (rows["output_usd_per_million"] > 0).all()
        # A cache hit is never dearer than a miss.
        hit = rows["input_cache_hit_usd_per_million"].fillna(0)
        assert (hit <= rows["input_cache_miss_usd_per_million"]).all()


def test_v4_costs_twice_as_much_at_peak() -> None:
    """DeepSeek's list from 2026-08-16: peak UTC 01:00-04:00 and 06:00-10:00, Monday to Friday."""
    rows = api_prices("deepseek-v4-pro-0813")
    off, peak = (row for _, row in rows[rows["official"]].iterrows())
    for kind in ("input_cache_hit", "input_cache_miss", "output"):
        assert peak[f"{kind}_usd_per_million"] == pytest.approx(2 * off[f"{kind}_usd_per_million"])
    assert off["note"].startswith("off-peak")
    assert "01:00-04:00 and 06:00-10:00" in peak["note"]


def test_a_report_has_one_price_of_a_list_that_changes_by_the_hour() -> None:
    """DeepSeek's off-peak list from 2026-08-16: 0.022 hit, 0.66 miss, 1.98 output; twice that at peak."""
    rows = api_prices("deepseek-v4-pro-0813")
    shown = api_table(rows)
    off = rows[rows["official"] & rows["hours_utc"].isna()].iloc[0]
    maker = shown[shown["official"]].set_index("sold")[USD]
    assert maker.to_dict() == {label: off[f"{key}_usd_per_million"] for key, label in PRICES.items()}
    assert maker["input, cache miss"] == 0.66
    assert len(shown[~shown["official"]]), "other providers stay"
