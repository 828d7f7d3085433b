"""What nobody expected: every page says it in a sentence, logs it, and goes on; what users gave is shown as text."""

import itertools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import sim
from dashboard import jobs, parts
from dashboard.data import scenarios, services, silicon, studies, validations
from dashboard.data.problems import BadInput, said
from dashboard.jobs import Job
from sim.scenario.loading import parse

FOLDER = Path(__file__).parents[2] / "dashboard"
PLAIN = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 20}}
duration_s: 20
"""
SERVE = "deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}"
ODD = {
    "ttft": PLAIN + "objectives: {ttft_p99_s: 2.0}\n",
    "tpot": PLAIN + "objectives: {tpot_p99_s: 0.05}\nprice: {usd_per_gpu_hour: 3.5}\n",
    "unstable": PLAIN.replace("rate_per_s: 2", "rate_per_s: 500") + "speculation: {draft_tokens: 2}\n",
    "separate": PLAIN.replace(SERVE, "deployment: {prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16}}"),
    "empty": PLAIN.replace("rate_per_s: 2", "rate_per_s: 1e-6"),
}
MARKUP = "**bold** :material/home: :red[x] $x^2$ <b>b</b> ![i](http://example.com/i.png)"


def broken(*_: object, **__: object) -> object:
    raise KeyError("TTFT", MARKUP)


def page(view: str) -> AppTest:
    app = AppTest.from_file(str(FOLDER / "app.py"), default_timeout=600)
    return app.run() if view == "compare" else app.switch_page(f"views/{view}.py").run()


@pytest.mark.parametrize(
    ("view", "where", "name"),
    [
        ("compare", services, "charts"),
        ("compare", services, "overview"),
        ("compare", scenarios, "every"),
        ("what_if", services, "charts"),
        ("what_if", scenarios, "names"),
        ("mechanisms", studies, "position"),
        ("step", studies, "shares"),
        ("calibration", silicon, "tables"),
        ("calibration", silicon, "about"),
        ("validation", validations, "scatter"),
    ],
)
def test_a_page_that_fails_says_so_in_a_sentence_and_logs_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, view: str, where: object, name: str
) -> None:
    monkeypatch.setattr(where, name, broken)
    with caplog.at_level(logging.ERROR, logger=parts.LOG.name):
        app = page(view)
    assert not app.exception
    assert "choose another page" in app.error[-1].value
    assert any("KeyError" in code.value and MARKUP in code.value for code in app.code)
    assert not any("TTFT" in error.value for error in app.error)
    assert caplog.records and all(r.exc_info and r.exc_info[0] is KeyError for r in caplog.records)
    monkeypatch.undo()
    assert not app.run().error  # and the way on leads back


def test_one_row_of_charts_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = services.charts
    monkeypatch.setattr(
        services, "charts", lambda shown, *keys: broken() if "prices" in keys else sound(shown, *keys)
    )
    for view, left in (("compare", 1), ("what_if", 2)):
        app = page(view)
        assert not app.exception and len(app.error) == 1
        assert len(app.get("plotly_chart")) == left


def test_the_log_reaches_the_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.root, "handlers", [])  # as the server has it: pytest adds its own
    with parts.mending():
        broken()
    assert "Traceback" in capfd.readouterr().err


def test_a_defect_is_not_told_as_the_user_s_mistake() -> None:
    with pytest.raises(KeyError):
        said(broken)()
    with pytest.raises(BadInput, match="no such thing"):
        said(raising(ValueError("no such thing")))()


def raising(error: Exception) -> Callable[[], Any]:
    def call() -> None:
        raise error

    return call


def test_compare_draws_any_two_simulated_scenarios(monkeypatch: pytest.MonkeyPatch) -> None:
    results = {text: sim.simulate(parse(text).scenario) for text in ODD.values()}
    monkeypatch.setattr(scenarios, "every", lambda: ODD)
    monkeypatch.setattr(services, "simulated", results.get)
    app = AppTest.from_file(str(FOLDER / "views" / "compare.py"), default_timeout=600)
    app.query_params["cs"] = ["ttft", "tpot"]
    app.run()
    for pair in itertools.combinations(ODD, 2):
        app.multiselect(key="cs").set_value(pair).run()
        assert not app.exception and not app.error, pair
        assert len(app.get("plotly_chart")) == 4, pair


def test_compare_goes_on_where_one_result_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = Job(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / jobs.DONE["run"]).write_text("{", encoding="utf-8")
    job.process = type("Ended", (), {"returncode": 0, "poll": lambda _: 0})()
    assert job.state == "done"
    monkeypatch.setattr(scenarios, "every", lambda: ODD)
    monkeypatch.setattr(services, "job", lambda text: job if text == ODD["ttft"] else None)
    app = AppTest.from_file(str(FOLDER / "views" / "compare.py"), default_timeout=600)
    app.query_params["cs"] = ["ttft", "tpot"]
    app.run()
    assert not app.exception
    assert "ttft: the simulation failed" in app.error[0].value
    assert "cannot be read" in app.code[0].value
    assert len(app.get("plotly_chart")) == 3


@pytest.mark.parametrize(
    "name",
    [
        "a*b*c",
        "__x__",
        "[x](http://y)",
        "a:material/home:b",
        "$x$",
        "# x",
        "1. x",
        "<b>x</b>",
        "~~x~~",
        "a\\b",
    ],
)
def test_a_name_is_no_markdown(name: str) -> None:
    shown = parts.plain(name)
    for mark in "*_[]<>$#~`":
        assert shown.count(mark) == shown.count(f"\\{mark}")
    assert ":material/" not in shown
    assert shown.replace("\u2060", "").replace("\\\\", "\0").replace("\\", "").replace("\0", "\\") == name


def test_a_table_shows_texts_as_they_are() -> None:
    shown = parts.html_table(parts.pd.DataFrame({"<b>": [MARKUP, None, 0.0281, 12345.6, True]}))
    assert "<b>" not in shown and "&lt;b&gt;b&lt;/b&gt;" in shown
    assert "0.0281" in shown and "12,346" in shown


def test_what_a_job_said_is_shown_as_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    job = Job(tmp_path, broken=MARKUP)
    monkeypatch.setattr(services, "job", lambda _: job)
    app = AppTest.from_file(str(FOLDER / "views" / "what_if.py"), default_timeout=600).run()
    assert app.code[0].value == MARKUP
    assert not any("bold" in shown.value for shown in (*app.error, *app.markdown, *app.info, *app.warning))


def test_an_upload_s_problem_is_shown_as_text_on_the_page() -> None:
    app = AppTest.from_file(str(FOLDER / "views" / "compare.py"), default_timeout=600).run()
    app.file_uploader(key="given").set_value(
        ("mine.yaml", f"model: '{MARKUP}'\n".encode(), "text/yaml")
    ).run()
    assert not app.exception
    assert "cannot be used" in app.error[0].value and MARKUP in app.code[0].value
    assert not app.sidebar.error
    assert len(app.get("plotly_chart")) == 3


def test_a_bad_validation_leaves_the_shipped_one_on_the_page() -> None:
    app = AppTest.from_file(str(FOLDER / "views" / "validation.py"), default_timeout=600).run()
    before = len(app.get("plotly_chart"))
    app.file_uploader(key="validation").set_value(("mine.json", b"{", "application/json")).run()
    assert "the shipped one is shown" in app.error[0].value and "not JSON" in app.code[0].value
    assert len(app.get("plotly_chart")) == before > 0


def test_texts_of_a_validation_are_no_markup() -> None:
    case = {
        "id": "<b>a</b>",
        "metric": MARKUP,
        "published": 0.02,
        "simulated": 0.03,
        "error": 0.5,
        "layout": "<i>x</i> y z ",
    }
    app = AppTest.from_file(str(FOLDER / "views" / "validation.py"), default_timeout=600).run()
    raw = json.dumps({"cases": [case]}).encode()
    app.file_uploader(key="validation").set_value(("mine.json", raw, "application/json")).run()
    assert not app.exception and not app.error
    for shown in app.markdown:
        assert not any(mark in shown.value for mark in ("**bold", ":material/home", ":red[", "![i]", "$x^2$"))
    assert not any(
        "<b>" in chart.proto.spec or "<i>" in chart.proto.spec for chart in app.get("plotly_chart")
    )
