"""Files of strangers: names that nobody could list, dates and counts as people write them, and what an error offers."""

from pathlib import Path

import pytest
from trace_text import load as loaded
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.loading import load as load_scenario
from sim.scenario.loading import parse
from sim.scenario.workload import TraceColumns
from sim.workload import trace
from sim.workload.build import requests

RUNNER = CliRunner()
SCENARIO = """model: deepseek-v3
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload: {trace: t.csv}
"""


def load(folder: Path, text: str, name: str = "t.csv", **asked: str) -> trace.Trace:
    (folder / name).write_text(text, encoding="utf-8")
    found = trace.load(name, 0, folder, columns=TraceColumns(**asked) if asked else None)
    assert isinstance(found, trace.Trace)
    return found


@pytest.mark.parametrize(
    "header",
    [
        "RequestReceivedAt,n_in,n_out",
        "Received At,num_input_tokens,num_output_tokens",
        "received_at,prompt_len,completion_len",
        "request_time,tokens_in,tokens_out",
        "req_start_time,in_tokens,out_tokens",
        "created,usage.prompt_tokens,usage.completion_tokens",
        "Request Enqueued At,context_len,gen_len",
        "RequestTs,prefill_len,decode_len",
    ],
)
@pytest.mark.parametrize("stamp", ["2026-11-02T10:00:0{}Z", "2026-11-02 10:00:0{}.000", "179367480{}"])
def test_names_that_strangers_have(tmp_path: Path, header: str, stamp: str) -> None:
    rows = [f"{stamp.format(i)},{100 + i},{10 + i}" for i in range(3)]
    found = load(tmp_path, "\n".join([header, *rows]))
    assert found.arrival_s is not None and found.arrival_s.tolist() == [0, 1, 2]
    assert found.prompts.input_tokens.tolist() == [100, 101, 102]
    assert found.prompts.output_tokens.tolist() == [10, 11, 12]


@pytest.mark.parametrize(
    ("first", "second", "apart_s"),
    [
        ("02.11.2026 10:00", "02.11.2026 10:01:30", 90),
        ("30.11.2026 23:59", "1.12.2026 0:01", 120),
        ("11/12/2026 10:00", "11/13/2026 10:00", 86400),
        ("12/11/2026 10:00", "13/11/2026 10:00", 86400),
        ("13-11-2026 10:00", "13-11-2026 10:00:02.5", 2.5),
        ("11/13/2026 11:59:59 AM", "11/13/2026 12:00:01 PM", 2),
        ("11/13/2026 12:30 AM", "11/13/2026 1:30 AM", 3600),
        ("11/02/2026 10:00", "11/02/2026 10:01", 60),  # one day, whichever
        ("13.11.2026 10:00:00+01:00", "13.11.2026 10:00:00Z", 3600),
    ],
)
def test_dates_with_the_year_last(tmp_path: Path, first: str, second: str, apart_s: float) -> None:
    found = load(tmp_path, f"time;input_tokens;output_tokens\n{first};10;1\n{second};10;1\n")
    assert found.span_s == apart_s and not found.notes


def test_a_date_that_may_be_either_is_refused(tmp_path: Path) -> None:
    text = "time,input_tokens,output_tokens\n11/02/2026 10:00,10,1\n11/03/2026 10:00,10,1\n"
    with pytest.raises(
        DeploymentError, match=r"day or month first\? time has dates such as 11/0. *.*year first"
    ):
        load(tmp_path, text)
    # A file that contradicts itself is told of the line that does not fit.
    with pytest.raises(ScenarioError, match=r"t.csv:4:1: .*month first as elsewhere") as raised:
        load(tmp_path, text.replace("/03/", "/23/") + "13/11/2026 10:00,10,1\n")
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize("cell", ['"7,482"', "7 482", "7'482", "7482.0", "7\u202f482"])
def test_thousands_are_counts(tmp_path: Path, cell: str) -> None:
    found = load(tmp_path, f"time,input_tokens,output_tokens\n0,{cell},1\n")
    assert found.prompts.input_tokens.tolist() == [7482]


@pytest.mark.parametrize("cell", ['"7,48"', '"7,4821"', '"1,234 567"', '",482"', '"1,200.5"'])
def test_what_only_looks_like_thousands_is_none(tmp_path: Path, cell: str) -> None:
    with pytest.raises(ScenarioError, match=r"t.csv:2:3: input_tokens: expected a"):
        load(tmp_path, f"time,input_tokens,output_tokens\n0,{cell},1\n")


def test_an_empty_answer_failed(tmp_path: Path) -> None:
    found = load(tmp_path, "time,input_tokens,output_tokens\n0,10,1\n1,10,\n2,10, \n3,10,4\n")
    assert found.prompts.output_tokens.tolist() == [1, 4]
    assert found.notes == ("t.csv: 2 of 4 requests have no output tokens; left out",)
    rows = '{"ts": 0, "isl": 10, "osl": 1}\n{"ts": 1, "isl": 10, "osl": null}\n{"ts": 2, "isl": 10}\n'
    assert len(load(tmp_path, rows, "t.jsonl").prompts) == 1


ODD = "Uhrzeit,Frage,Antwort,Nummer\n2026-11-02 10:00:00,900,40,1\n2026-11-02 10:00:02,800,50,2\n"


def test_columns_are_named_by_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(ODD)
    (tmp_path / "s.yaml").write_text(
        SCENARIO.replace("t.csv}", "t.csv, columns: {arrival: Uhrzeit, input: Frage, output: Antwort}}")
    )
    stream = requests(load_scenario(tmp_path / "s.yaml").scenario, 0, tmp_path)
    assert stream.prompts.input_tokens.tolist() == [900, 800] and stream.last_arrival_s == 2
    other = load_scenario(tmp_path / "s.yaml", ["workload.trace=azure-code"]).scenario
    assert other.workload.columns is None  # they are of the file


def test_columns_that_are_named_go_before_known_ones(tmp_path: Path) -> None:
    text = "ts,input_tokens,output_tokens,sent_ms,items\n0,10,1,500,7\n1,10,1,900,8\n"
    found = load(tmp_path, text, arrival="sent_ms", output="items", input="output_tokens")
    assert found.span_s == pytest.approx(0.4) and found.prompts.output_tokens.tolist() == [7, 8]
    assert found.prompts.input_tokens.tolist() == [1, 1]
    assert load(tmp_path, text, arrival="items").span_s == 1  # no milliseconds


def test_a_column_that_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError) as raised:
        load(tmp_path, ODD, arrival="Urzeit", input="Frage", output="Ant")
    first, second = raised.value.problems
    assert first.path == ("workload", "columns", "arrival") and "did you mean 'Uhrzeit'?" in first.message
    assert (
        second.path == ("workload", "columns", "output")
        and "but Uhrzeit, Frage, Antwort, Nummer" in second.message
    )
    with pytest.raises(DeploymentError, match="one column can be one of these only"):
        load(tmp_path, ODD, input="Frage", output="Frage")
    with pytest.raises(
        DeploymentError, match=r"workload.columns: 'azure-code' tells what its columns are itself"
    ):
        trace.load("azure-code", 0, columns=TraceColumns(input="x"))
    with pytest.raises(ScenarioError, match=r"workload.columns.inputt: unknown key; did you mean 'input'"):
        parse(SCENARIO.replace("t.csv}", "azure-code, columns: {inputt: x}}"))


def test_the_command_takes_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text(ODD)
    roles = ["--column", "arrival=Uhrzeit", "--column", "input=Frage", "--column", "output=Antwort"]
    assert "Uhrzeit" in RUNNER.invoke(app, ["trace", "t.csv", *roles]).stdout
    for words, says in (
        (
            ["--column", "input=Fragen"],
            "--column input: 't.csv' has no column 'Fragen', but Uhrzeit, ",
        ),
        (
            ["--column", "prompt=Frage"],
            "--column prompt=Frage: expected ROLE=NAME, the role one of arrival, input",
        ),
        (["--column", "input"], "--column input: expected ROLE=NAME"),
    ):
        ran = RUNNER.invoke(app, ["trace", "t.csv", *words])
        assert ran.exit_code == 2 and ran.stderr.startswith(says), ran.stderr


@pytest.mark.parametrize(
    ("column", "cells"),
    [
        ("Uhrzeit", ["2026-11-02 10:00:00", "2026-11-02 10:00:02", "2026-11-02 10:00:03"]),
        ("Uhrzeit", ["02.11.2026 10:00", "02.11.2026 10:01", ""]),
        ("Sekunde", ["0", "0.4", "3.1"]),
    ],
)
def test_a_column_that_may_be_the_time_is_offered(tmp_path: Path, column: str, cells: list[str]) -> None:
    rows = [f"{n},{cell},{100 - n},5,a-{n}" for n, cell in enumerate(cells)]
    text = "\n".join([f"Nummer,{column},input_tokens,output_tokens,user", *rows])
    found = load(tmp_path, text)
    offered = f"{column} looks like times: `columns: {{arrival: {column}}}` reads it"
    assert found.arrival_s is None and found.looks_like_times == offered
    (tmp_path / "s.yaml").write_text(SCENARIO)
    scenario = load_scenario(tmp_path / "s.yaml").scenario
    with pytest.raises(
        DeploymentError, match=r"has no times; give `workload.arrivals`\. .* looks like times: "
    ):
        requests(scenario, 0, tmp_path)
    told = RUNNER.invoke(app, ["trace", str(tmp_path / "t.csv")])
    assert told.exit_code == 0 and "looks like times" in " ".join((told.stdout + told.stderr).split())


def test_two_columns_that_may_be_the_time_are_not_guessed(tmp_path: Path) -> None:
    text = "von,bis,input_tokens,output_tokens\n2026-11-02 10:00,2026-11-02 10:01,10,1\n"
    assert load(tmp_path, text).looks_like_times == ""


def test_columns_that_may_be_the_tokens_are_offered(tmp_path: Path) -> None:
    with pytest.raises(
        ScenarioError, match=r"output_tokens, who; Frage may be it: `columns: \{input: Frage\}`"
    ):
        loaded(tmp_path, "ts,Frage,output_tokens,who\n0,900,1,a\n1,800,1,b\n")
    with pytest.raises(ScenarioError, match=r"`columns: \{input: Frage, output: Antwort\}`"):
        loaded(tmp_path, "ts,Frage,Antwort\n0,900,1\n1,800,2\n")
    with pytest.raises(ScenarioError, match=r"a and b may be it: `columns: \{input: \.\.\.\}`"):
        loaded(tmp_path, "ts,a,b,output_tokens\n0,900,1,1\n")
    with pytest.raises(ScenarioError) as raised:
        loaded(tmp_path, "ts,who,output_tokens\n0,a,1\n")
    assert "may be it" not in str(raised.value)
