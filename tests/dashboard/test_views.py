"""Every page but What-if under AppTest: default and extreme inputs, no exception."""

import re
from pathlib import Path

import pytest
from opened_pages import FOLDER, VIEWS, opened, sound, tables
from streamlit.testing.v1 import AppTest

import sim
from dashboard.data import scenarios, services, studies
from dashboard.jobs import Job
from sim.scenario.loading import parse


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
    names = app.selectbox(key="kp").options
    for name in [name for name in names if name.count("/") == 1 or name.startswith("b200_sxm/vllm")]:
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


def test_validation_gives_the_reason_of_each_band() -> None:
    app = sound(opened("validation"))
    app.selectbox(key="vm").select("tokens_per_s_per_user").run()
    tables = [html.value for html in app.get("html")]
    [numbers] = [one for one in tables if "inside" in one]
    [reasons] = [one for one in tables if "why so wide" in one]
    assert "24 hours" in numbers and "open-infra-index" in numbers
    assert "printed as 20 to 22" in reasons and "DAY" in reasons
