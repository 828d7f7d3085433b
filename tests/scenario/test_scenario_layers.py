"""A scenario of several layers: the files it extends, what is set on top, and the files that it names."""

from pathlib import Path

import pytest
from scenario_text import BASE, problems

from sim.scenario.errors import ScenarioError
from sim.scenario.loading import apply, load, parse

# --- extends -----------------------------------------------------------------------------------------------------


def test_extends_merges_section_by_section_and_keeps_the_places_of_both_files(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / "base.yaml").write_text(BASE)
    (tmp_path / "bases" / "middle.yaml").write_text("extends: base.yaml\nduration_s: 30\n")
    (tmp_path / "top.yaml").write_text("extends: bases/middle.yaml\ndeployment:\n  decode: {workers: 5}\n")
    loaded = load(tmp_path / "top.yaml")
    assert loaded.scenario.duration_s == 30
    assert loaded.scenario.deployment.decode is not None
    assert loaded.scenario.deployment.decode.workers == 5
    assert loaded.scenario.deployment.decode.gpus == 16
    assert [Path(source).name for source in loaded.sources] == ["top.yaml", "middle.yaml", "base.yaml"]
    places = loaded.positions
    assert Path(places[("gpu",)].file).name == "base.yaml"
    workers = places["deployment", "decode", "workers"]
    assert (Path(workers.file).name, workers.line) == ("top.yaml", 3)
    (tmp_path / "bases" / "base.yaml").write_text(BASE.replace("ep: 16", "ep: x"))
    with pytest.raises(ScenarioError) as caught:
        load(tmp_path / "top.yaml")
    (problem,) = caught.value.problems
    assert problem.file == str(tmp_path / "bases" / "base.yaml")
    assert problem.line == 5


def test_extends_round_in_a_circle_and_into_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("gpu: x\nextends: ./a.yaml\n")
    (tmp_path / "lost.yaml").write_text("extends: aa.yaml\n")
    (tmp_path / "list.yaml").write_text("extends: [a.yaml]\n")
    said = []
    for name in ("a.yaml", "lost.yaml", "list.yaml"):
        with pytest.raises(ScenarioError) as caught:
            load(tmp_path / name)
        said.append(caught.value.problems[0])
    assert said[0].message == "goes round in a circle: a.yaml -> b.yaml -> a.yaml"
    assert (said[0].file, said[0].line, said[0].column) == (str(tmp_path / "b.yaml"), 2, 10)
    assert said[1].message == f"{tmp_path / 'aa.yaml'}: no such file; did you mean 'a.yaml'?"
    assert (said[1].line, said[1].column) == (1, 10)
    assert said[2].message == "expected the name of another scenario file"


def test_another_choice_takes_the_place_of_the_base_s(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "top.yaml").write_text(
        "extends: base.yaml\ndeployment: {serve: {gpus: 8}}\nprice: {tier: rent_3yr}\n"
        "workload: {arrivals: {closed_loop: {concurrency: 64}}, lengths: {input: {constant: 7}}}\n"
    )
    scenario = load(tmp_path / "top.yaml").scenario
    assert list(scenario.deployment.pools()) == ["serve"]
    assert scenario.price.usd_per_gpu_hour is None
    assert scenario.workload.arrivals is not None
    assert scenario.workload.arrivals.poisson is None
    assert scenario.workload.lengths is not None
    assert scenario.workload.lengths.input.constant == 7
    assert scenario.workload.lengths.output.constant == 250


# --- overrides ---------------------------------------------------------------------------------------------------


def test_overrides_are_yaml_and_lie_on_top() -> None:
    loaded = parse(
        BASE,
        "f",
        [
            "deployment.decode.max_batch_per_gpu=1e2",
            "workload.lengths.output.uniform=[3, 5]",
            "duration_s=",
            "workload.requests=10",
        ],
    )
    decode, lengths = loaded.scenario.deployment.decode, loaded.scenario.workload.lengths
    assert decode is not None
    assert lengths is not None
    assert decode.max_batch_per_gpu == 100
    assert lengths.output.uniform == (3, 5)
    assert lengths.output.constant is None
    assert loaded.scenario.duration_s is None
    assert loaded.data["workload"]["requests"] == 10  # type: ignore[index]


def test_a_trace_with_other_arrivals_can_be_set_in_any_order() -> None:
    sets = ["workload.arrivals.poisson.rate_per_s=3", "workload.trace=azure-code"]
    for order in (sets, sets[::-1]):
        workload = parse(BASE, "f", order).scenario.workload
        assert workload.trace == "azure-code"
        assert workload.lengths is None
        assert workload.arrivals is not None


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("deployment.decode.tp=-3", "--set deployment.decode.tp: expected a whole number from 1 to 100000, got -3"),
        ("deployment.decod.tp=3", "--set deployment.decod.tp: deployment.decod: unknown key; did you mean 'decode'?"),
        ("gpuu=h200", "--set gpuu: unknown key; did you mean 'gpu'?"),
        ("gpu", "--set gpu: expected key.path=value"),
        ("=3", "--set =3: expected key.path=value"),
        ("a..b=3", "--set a..b=3: expected key.path=value"),
        ("gpu=[1",
         "--set gpu:1:3: not valid YAML: expected ',' or ']', but got '<stream end>' "
         "while parsing a flow sequence"),
        ("gpu.x=3", "--set gpu.x: gpu: expected a name or a file, got a section"),
        ("workload.trace=lost.csv", "--set workload.trace: no such file: lost.csv"),
    ],
)  # fmt: skip
def test_a_wrong_override_names_itself(override: str, said: str) -> None:
    assert problems(BASE, override) == [said]


def test_the_same_key_cannot_be_set_twice() -> None:
    assert problems(BASE, "gpu=a", "gpu=b") == ["--set gpu: set twice"]


def test_apply_makes_another_point_of_a_sweep() -> None:
    loaded = parse(BASE)
    point = apply(loaded, {"gpu": "b200_sxm", "deployment.serve": {"gpus": 8}})
    assert point.scenario.gpu == "b200_sxm"
    assert list(point.scenario.deployment.pools()) == ["serve"]
    assert loaded.scenario.gpu == "h200_sxm"
    with pytest.raises(
        ScenarioError, match="override duration_s: expected a number above 0 to 1e9 s, got -1"
    ):
        apply(loaded, {"duration_s": -1})


# --- files that a scenario names ---------------------------------------------------------------------------------


def test_files_are_found_beside_the_file_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bases").mkdir()
    trace = tmp_path / "bases" / "mine.csv"
    trace.write_text("x")
    text = BASE[: BASE.index("workload:")] + "workload: {trace: mine.csv}\nprofile: h200_sxm/sglang\n"
    (tmp_path / "bases" / "base.yaml").write_text(text)
    (tmp_path / "top.yaml").write_text("extends: bases/base.yaml\n")
    monkeypatch.chdir(tmp_path)
    scenario = load("top.yaml").scenario
    assert scenario.workload.trace == str(trace.resolve())
    assert scenario.profile == "h200_sxm/sglang"
    assert load("top.yaml", ["workload.trace=bases/mine.csv"]).scenario.workload.trace == str(trace.resolve())
    assert load("top.yaml", ["workload.trace=azure-code"]).scenario.workload.trace == "azure-code"
    with pytest.raises(ScenarioError) as caught:
        load("top.yaml", ["workload.trace=bases/mien.csv"])
    assert str(caught.value) == "--set workload.trace: no such file: bases/mien.csv; did you mean 'mine.csv'?"
    (tmp_path / "bases" / "base.yaml").write_text(
        text.replace("mine.csv", "mien.csv").replace("ep: 8", "ep: -8")
    )
    with pytest.raises(ScenarioError) as caught:
        load("top.yaml")
    assert [p.line for p in caught.value.problems] == [4, 7]
    assert str(caught.value.problems[1]).splitlines()[0] == (
        "bases/base.yaml:7:19: workload.trace: no such file: mien.csv; did you mean 'mine.csv'?"
    )
