"""Every page under AppTest: default and extreme inputs, no exception; what it shows and what it saves agree."""

import json
import re
import statistics
import time
from html import unescape
from pathlib import Path

import pytest
import yaml
from streamlit.testing.v1 import AppTest

import sim
from dashboard.data import scenarios, services, studies
from dashboard.data.headline import digits
from dashboard.jobs import Job
from dashboard.settings import CHOICES, DEFAULTS, OWN_PRICE, decode
from sim import cli
from sim.scenario.loading import parse

FOLDER = Path(__file__).parents[2] / "dashboard"
VIEWS = sorted(path for path in (FOLDER / "views").glob("*.py") if path.name != "__init__.py")


def opened(view: str, **query: str) -> AppTest:
    app = AppTest.from_file(str(FOLDER / "views" / f"{view}.py"), default_timeout=600)
    for key, value in query.items():
        app.query_params[key] = value
    return app.run()


def sound(app: AppTest) -> AppTest:
    assert not app.exception, app.exception[0].message
    return app


def tables(app: AppTest) -> list[list[dict[str, str]]]:
    """The tables that a page shows whole: rows of heading -> cell, as a person reads them."""
    found = []
    for shown in app.get("html"):
        head, _, body = shown.proto.body.partition("</thead>")
        names = [unescape(name) for name in re.findall(r"<th(?: [^>]*)?>(.*?)</th>", head)]
        cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in re.findall(r"<tr>(.*?)</tr>", body)]
        found.append([dict(zip(names, map(unescape, row), strict=True)) for row in cells])
    return found


def test_there_are_the_seven_pages() -> None:
    names = {path.stem for path in VIEWS}
    assert names == {"compare", "what_if", "capacity", "mechanisms", "step", "calibration", "validation"}


def test_no_two_pages_use_the_same_key() -> None:
    """Streamlit keeps a widget's value by its key when the page changes: what is a name there is a number here."""
    owners: dict[str, str] = {}
    for path in VIEWS:
        text = path.read_text(encoding="utf-8")
        for key in {*re.findall(r'key="(\w+)"', text), *re.findall(r'(?:slide|pick)\("(\w+)"', text)}:
            if key not in ("simulate", "plan"):  # a button keeps nothing
                assert owners.setdefault(key, path.stem) == path.stem, key


@pytest.mark.parametrize("view", [path.stem for path in VIEWS])
def test_every_page_opens_from_the_app(view: str) -> None:
    app = AppTest.from_file(str(FOLDER / "app.py"), default_timeout=600).run()
    app.switch_page(f"views/{view}.py").run()
    sound(app)
    assert len(app.title) == 1


def test_compare_shows_every_shipped_scenario() -> None:
    app = opened("compare")
    names = app.multiselect(key="cs").options
    assert {"azure-v3.2", "azure-v3.1", "chat", "overload"} <= set(names) and "bench" not in names
    sound(app.multiselect(key="cs").set_value(names).run())
    assert [row["scenario"] for row in tables(app)[0]] == names
    assert not app.error


def test_compare_without_a_scenario_says_what_to_do() -> None:
    app = opened("compare")
    sound(app.multiselect(key="cs").set_value([]).run())
    assert "Pick a scenario" in app.info[0].value


def test_compare_misses_no_simulation_that_ends_while_it_draws(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = scenarios.every()["chat"]
    job = Job(tmp_path)  # it waits
    finished = sim.simulate(parse(text).scenario)

    def ends(_: str) -> object:
        """Nothing at the first look, at whose end the simulation is done."""
        found = None if job.under_way else finished
        job.cancelled = True
        return found

    monkeypatch.setattr(services, "job", lambda _: job)
    monkeypatch.setattr(services, "simulated", ends)
    app = sound(opened("compare", cs="chat"))
    assert [row["from"] for row in tables(app)[0]] == ["simulation"]
    [parts] = next(table for table in tables(app) if "queue, ms" in table[0])
    assert list(parts)[2:] == [
        "queue, ms",
        "prefill, ms",
        "KV transfer, ms",
        "admission, ms",
        "first step, ms",
    ]


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


@pytest.mark.parametrize(
    "junk", [{"r": "x"}, {"m": "../../etc"}, {"base": "r:x;;q"}, {"g": "h20_96"}, {"t": "no_tier"}]
)
def test_junk_in_the_address_is_left_out(junk: dict[str, str]) -> None:
    sound(opened("what_if", **junk))


def test_the_saved_yaml_gives_the_numbers_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Simulate on the page; run what it saves on the command line; read both."""
    query = {"r": "5.0", "o": "50", "d": "1", "h": "25", "s": "0.5"}
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


@pytest.mark.parametrize("phase", ["decode", "prefill"])
@pytest.mark.parametrize("ends", [("1", "128", "0"), ("512", "16384", "131072")])
def test_step_stands_its_ends(phase: str, ends: tuple[str, str, str]) -> None:
    batch, chunk, context = ends
    for name in (*scenarios.FIRST, "chat", "context/v3.2-128k"):
        app = sound(opened("step", ss=name, sp=phase, sb=batch, sn=chunk, sc=context))
        assert "takes" in app.markdown[0].value
        step = studies.step(
            scenarios.every()[name], phase, int(batch if phase == "decode" else chunk), int(context)
        )
        over = step["memory"]["kv_tokens_needed"] > step["memory"]["kv_tokens"]
        assert any("cannot run" in warning.value for warning in app.warning) == over


def test_a_step_that_exceeds_the_cache_says_by_how_much() -> None:
    """512 sequences of 131,072 tokens on a rank need 67,108,864."""
    app = sound(opened("step", ss="azure-v3.2", sb="512", sc="131072"))
    room = studies.step(scenarios.every()["azure-v3.2"], "decode", 512, 131072)["memory"]["kv_tokens"]
    assert f"67,108,864 KV tokens on a rank, {67108864 / room:.3g} times" in app.warning[0].value


@pytest.mark.parametrize(
    "query",
    [
        {
            "mp": "prefill",
            "mc": "1024",
            "mn": "8",
            "ms": "0.0",
            "mx": "0",
            "my": "0.0",
            "ml": "1",
            "mk": "512",
        },
        {
            "mp": "decode",
            "mb": "256",
            "md": "3",
            "mn": "256",
            "ms": "2.0",
            "mx": "256",
            "my": "1.0",
            "ml": "8",
            "mk": "131072",
        },
        {"mg": "h20_96"},
        {"mg": "gb200_nvl72"},
    ],
    ids=["low", "high", "H20", "GB200"],
)
def test_mechanisms_stand_their_ends(query: dict[str, str]) -> None:
    app = sound(opened("mechanisms", **query))
    assert not app.error


def test_calibration_knows_every_profile() -> None:
    app = opened("calibration")
    for name in app.selectbox(key="kp").options:
        app = sound(app.selectbox(key="kp").set_value(name).run())
        assert not app.error
        assert len(app.selectbox(key="ko").options) > 0


def test_validation_says_how_to_make_a_result_or_shows_it() -> None:
    app = sound(opened("validation"))
    assert app.code or any("published values" in text.value for text in app.markdown)


def test_validation_stands_every_choice_and_filters_that_leave_nothing() -> None:
    app = sound(opened("validation"))
    for metric in app.selectbox(key="vm").options:
        index = app.selectbox(key="vm").options.index(metric)
        sound(app.selectbox(key="vm").select_index(index).run())
        assert metric in app.markdown[0].value
    for by in range(5):
        sound(app.selectbox(key="vby").select_index(by).run())
    sound(app.multiselect(key="gpu").set_value(["h800_sxm"]).run())
    sound(app.selectbox(key="vm").select_index(0).run())
    assert "No case is left" in app.info[0].value


def test_validation_names_the_model_and_tells_held_out_values_first() -> None:
    app = sound(opened("validation", vm="tpot"))
    said = app.markdown[0].value
    assert "TPOT" in said and "deepseek-r1" in said
    assert said.index("held out") < said.index("fitted on")
    app.multiselect(key="v_half").set_value(["fitted on"])
    assert "held out" not in sound(app.run()).markdown[0].value
    app.multiselect(key="v_half").set_value([])
    app.multiselect(key="v_model").set_value(["deepseek-v3"])
    assert "No case is left" in sound(app.run()).info[0].value


def test_a_slider_is_answered_quickly(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the server's time for a move of a slider; nothing here depends on the machine's speed."""
    app = opened("what_if")
    spent: dict[str, list[float]] = {}
    for key, values in (
        ("r", CHOICES["r"][4:12]),
        ("i", CHOICES["i"][4:12]),
        ("o", CHOICES["o"][2:10]),
        ("b", CHOICES["b"][2:]),
    ):
        for value in values:
            app.select_slider(key=f"{key}_slider").set_value(value)
            began = time.perf_counter()
            sound(app.run())
            spent.setdefault(key, []).append(time.perf_counter() - began)
    every = [s for times in spent.values() for s in times]
    with capsys.disabled():
        by_key = ", ".join(f"{key} {statistics.median(times) * 1e3:.0f}" for key, times in spent.items())
        print(
            f"\nWhat-if, server time of a slider move: median {statistics.median(every) * 1e3:.0f} ms ({by_key})"
        )
    assert parse(app.code[0].value).scenario


def test_what_if_says_where_its_estimate_is_rough() -> None:
    """Workers of both kinds, answers of one length, more requests than can be served."""
    rough = sound(opened("what_if", k="joint", v="0.0", r="100.0"))
    assert any("All answers have the same length" in info.value for info in rough.info)
    assert not any("rough" in info.value for info in sound(opened("what_if")).info)


def test_validation_gives_the_reason_of_each_band() -> None:
    app = sound(opened("validation"))
    app.selectbox(key="vm").select("tokens_per_s_per_user").run()
    [table] = [html.value for html in app.get("html") if "why so wide" in html.value]
    assert "24 hours" in table and "printed as 20 to 22" in table and "open-infra-index" in table
