"""The What-if page under AppTest: its settings and their ends, its address, and what it shows and saves agree."""

import json
import statistics
from pathlib import Path

import pytest
import yaml
from opened_pages import opened, sound, tables

from dashboard.data import scenarios, services
from dashboard.data.headline import digits
from dashboard.moves import moves_s
from dashboard.settings import CHOICES, DEFAULTS, OWN_PRICE, decode
from sim import cli

EXTREMES = [
    {key: values[index] for key, values in CHOICES.items() if key not in ("k", "w", "c")} | fixed
    for index in (0, -1)
    for fixed in ({"k": "separate"}, {"k": "joint"})
]


@pytest.mark.parametrize("changed", EXTREMES, ids=["low", "low, joint", "high", "high, joint"])
def test_what_if_stands_extreme_settings(changed: dict[str, object]) -> None:
    app = opened("what_if", **{key: str(value) for key, value in changed.items()})
    sound(app)
    assert app.error or app.metric


ONE_BY_ONE = [
    (key, value)
    for key, values in CHOICES.items()
    for value in (values[0], values[-1])
    if value != DEFAULTS[key]
]


def test_what_if_stands_every_setting_at_its_ends() -> None:
    for key, value in ONE_BY_ONE:
        kind = {"k": "joint"} if key in ("sw", "sg", "st") else {}
        app = sound(opened("what_if", **{**kind, key: str(value)}))
        assert app.session_state[key] == value, key
        assert app.error or app.metric, (key, value)


def test_what_if_knows_every_model_gpu_and_engine() -> None:
    offered = scenarios.names()
    for key, names in (("m", offered["models"]), ("g", offered["gpus"]), ("e", offered["engines"])):
        for name in names:
            app = sound(opened("what_if", **{key: name}))
            assert app.session_state[key] == name
            assert app.error or app.metric


def test_what_if_says_what_would_fit() -> None:
    app = sound(opened("what_if", pg="4"))
    assert app.error and "does not fit" in app.code[0].value
    assert "would fit" in app.code[0].value
    assert app.button(key="simulate").disabled


def test_what_if_warns_of_overload() -> None:
    app = sound(opened("what_if", r="1000.0"))
    assert "Overloaded" in app.warning[0].value


def test_what_if_takes_an_own_price() -> None:
    app = sound(opened("what_if", t=OWN_PRICE, u="10.0"))
    assert yaml.safe_load(app.code[0].value)["price"]["usd_per_gpu_hour"] == 10


def test_a_pinned_baseline_shows_the_change() -> None:
    app = sound(opened("what_if"))
    app.button(key="pin").click().run()
    assert decode(app.query_params["base"]) == DEFAULTS
    sound(app.select_slider(key="r_slider").set_value(10.0).run())
    blended = next(metric for metric in app.metric if metric.label == "Blended")
    # Twice the tokens at the same cost.
    assert blended.delta == "-50.0%"
    sound(app.button(key="unpin").click().run())
    assert "base" not in app.query_params


def test_the_address_holds_the_state() -> None:
    first = opened("what_if", r="20.0", i="8000", base="r:10.0;h:50")
    second = opened("what_if", **dict(first.query_params))
    assert [m.value for m in second.metric] == [m.value for m in first.metric]
    assert [m.delta for m in second.metric] == [m.delta for m in first.metric]
    assert second.code[0].value == first.code[0].value


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("o", "800", 800),
        ("r", "25", 25.0),
        ("r", "0.05", 0.05),
        ("pw", "5", 5),
        ("h", "42", 42),
        ("s", "1.05", 1.05),
    ],
)
def test_any_value_in_the_address_is_honoured(key: str, text: str, value: float) -> None:
    app = sound(opened("what_if", **{key: text}))
    assert app.number_input(key=key).value == value
    assert app.select_slider(key=f"{key}_slider").value == value
    assert not app.error
    sound(app.run())
    assert app.number_input(key=key).value == value


def test_the_field_and_the_slider_of_a_number_move_together() -> None:
    app = opened("what_if")
    sound(app.number_input(key="o").set_value(777).run())
    assert app.select_slider(key="o_slider").value == 777
    assert yaml.safe_load(app.code[0].value)["workload"]["lengths"]["output"]["lognormal"]["mean"] == 777
    sound(app.select_slider(key="o_slider").set_value(500).run())
    assert app.number_input(key="o").value == 500
    assert 777 not in app.select_slider(key="o_slider").options
    assert yaml.safe_load(app.code[0].value)["workload"]["lengths"]["output"]["lognormal"]["mean"] == 500


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"o": "abc"}, "o=abc: expected a whole number from 1 to 1,000,000; 300 is used"),
        ({"r": "-3"}, "r=-3: expected a number from 0.001 to 100,000; 5.0 is used"),
        ({"r": "nan"}, "r=nan: expected a number"),
        ({"g": "h900"}, "g=h900: expected one of"),
        ({"t": "no_tier"}, "t=no_tier: expected one of"),
        ({"k": "both"}, "k=both: expected one of separate, joint"),
        ({"base": "r:x;q:1"}, "base: r:x: expected a number"),
        ({"base": "r:x;q:1"}, "base: q: expected a setting"),
        ({"o": "![x](http://x)"}, "o=![x](http://x): expected"),
    ],
)
def test_a_value_in_the_address_that_is_none_is_said(query: dict[str, str], says: str) -> None:
    app = sound(opened("what_if", **query))
    assert "address" in app.error[0].value
    assert says in app.code[0].value


def test_what_is_paid_for_is_said() -> None:
    """24 of the 72 GPUs that NVLink joins: 72 are bought, at the price of a GPU-hour and its overhead."""
    app = sound(opened("what_if", g="gb200_nvl72", t=OWN_PRICE, u="2.0"))
    tiles = {tile.label: tile.value for tile in app.metric}
    assert (tiles["GPUs"], tiles["Objectives"]) == ("24", "simulate")  # an own price is by the node
    app = sound(opened("what_if", g="gb200_nvl72"))
    tiles = {tile.label: tile.value for tile in app.metric}
    assert tiles["GPUs"] == "24 of 72"
    assert "72 GPUs are paid for and 24 are used" in app.warning[0].value
    price = services.estimate(app.code[0].value).point.price
    assert price.usd_per_hour == pytest.approx(72 * price.gpu_hour.usd * (1 + price.overhead_fraction))
    assert tiles["Per hour"] == f"${price.usd_per_hour:.3g}"


def test_a_gpu_in_the_address_on_which_nothing_fits_says_so_and_what_would() -> None:
    """Weights of V3.2 on 8 GPUs of 102.6 GB leave no room."""
    said = sound(opened("what_if", g="h20_96")).code[0].value
    assert "does not fit: " in said and "would fit: gpus 16" in said


@pytest.mark.parametrize("junk", [{"r": "x"}, {"m": "../../etc"}, {"base": "r:x;;q"}, {"t": "no_tier"}])
def test_junk_in_the_address_is_left_out(junk: dict[str, str]) -> None:
    """And told above the scenario, which is that of an address without it."""
    told, scenario = sound(opened("what_if", **junk)).code[:2]
    assert told.value.startswith(tuple(junk))
    assert scenario.value == sound(opened("what_if")).code[0].value


def test_the_saved_yaml_gives_the_numbers_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulate on the page; run what it saves on the command line; read both."""
    query = {"r": "1.0", "o": "50", "d": "1", "h": "25", "s": "0.5"}
    app = sound(opened("what_if", **query))
    text = app.code[0].value + "\n"  # the page shows it without its last line break
    app.button(key="simulate").click().run()
    job = services.job(text)
    assert job is not None
    job.process.wait(600)
    assert job.state == "done", job.message
    sound(app.run())
    shown = services.simulated(text).json()

    file = tmp_path / "scenario.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as end:
        cli.app(["run", str(file), "--json", "--quiet"])
    assert end.value.code == 0
    run = json.loads(capsys.readouterr().out.splitlines()[-1])
    # The command adds what it does not save; everything that the page has must be the same.
    assert {key: run[key] for key in shown if key != "wall_s"} == {
        k: v for k, v in shown.items() if k != "wall_s"
    }
    row = next(row for table in tables(app) for row in table if row.get("from") == "simulation")
    assert row["blended, USD/M"] == digits(run["cost"]["usd_per_million"]["blended"])
    assert row["TTFT p99, s"] == digits(run["latency"]["ttft_s"]["p99"])
    tiles = {tile.label: tile.value for tile in app.metric}
    assert tiles["Blended"] == f"${run['cost']['usd_per_million']['blended']:.3g}/M"
    assert tiles["TTFT"] == f"{run['latency']['ttft_s']['mean']:.3g} s"
    assert tiles["Per hour"] == f"${run['cost']['usd_per_hour']:.3g}"
    kept = sum(
        run["latency"][name]["p99"] <= run["scenario"]["objectives"][f"{name[:4]}_p99_s"]
        for name in ("ttft_s", "tpot_s")
    )
    assert tiles["Objectives"] == f"{kept} of 2 kept"
    assert "simulated" in next(text.value for text in app.markdown if "badge" in text.value)


def test_a_slider_is_answered_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the server's time for a move of a slider; nothing here depends on the machine's speed."""
    spent = moves_s()
    every = [s for times in spent.values() for s in times]
    with capsys.disabled():
        by_key = ", ".join(f"{key} {statistics.median(times) * 1e3:.0f}" for key, times in spent.items())
        print(
            f"\nWhat-if, server time of a slider move: median {statistics.median(every) * 1e3:.0f} ms ({by_key})"
        )
    assert len(every) == 20


def test_what_if_says_where_its_estimate_is_rough() -> None:
    """Workers of both kinds, answers of one length, more requests than can be served."""
    rough = sound(opened("what_if", k="joint", v="0.0", r="100.0"))
    assert any("All answers have the same length" in info.value for info in rough.info)
    assert not any("rough" in info.value for info in sound(opened("what_if")).info)
