"""A GPU from a datasheet: read as docs/gpus.md shows, wrong values told where they stand, priced by the roofline."""

import re
from pathlib import Path

import pytest

import sim
from sim.deployment.device import gpu_of
from sim.deployment.plan import deploy
from sim.explain import explain
from sim.scenario.errors import ScenarioError

DOCS = (Path(__file__).parents[2] / "docs" / "gpus.md").read_text(encoding="utf-8")
GPU, SERVICE = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my-gpu.yaml").write_text(GPU)
    (tmp_path / "my-service.yaml").write_text(SERVICE)
    return tmp_path


def rewrite(folder: Path, old: str, new: str) -> Path:
    file = folder / "my-gpu.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return folder / "my-service.yaml"


def test_the_example_of_the_docs_is_priced_by_its_datasheet(folder: Path) -> None:
    scenario = sim.load(folder / "my-service.yaml")
    gpu = gpu_of(scenario)
    assert (gpu.name, gpu.memory_bytes, gpu.fp4_flop_per_s) == ("my-gpu", 288e9, 15e15)
    assert sim.simulate(scenario).json()["priced_by"]["analytic"] == pytest.approx(1)
    step = explain(scenario, "prefill", 4096)
    assert {o["priced_by"] for o in step.json()["operations"]} == {"analytic"}


def test_its_price_must_be_given(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="no price of my-gpu"):
        sim.load(folder / "my-service.yaml", ["price.usd_per_gpu_hour=null"])


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("288e9 ", "288 ", "memory_bytes", "expected a number from 1e9 to 1e14 bytes, got 288"),
        ("2.5e15", "2500", "bf16_flop_per_s", "expected a number from 1e12 to 1e18"),
        ("memory_bytes_per_s: 8.0e12", "", "memory_bytes_per_s", "required and missing"),
        ("fp8_flop_per_s", "fp8_flops", "fp8_flops", "did you mean 'fp8_flop_per_s'"),
        ("scale_up_domain: 8", "scale_up_domain: 12", "", "one divides the other"),
        ("gpus_per_node: 8", "gpus_per_node: zero", "gpus_per_node", "expected a whole number"),
        ("name: my-gpu", "name: H200", "name", "is a GPU of the catalog"),
    ],
)
def test_a_mistake_is_told_in_the_gpus_own_file(
    folder: Path, old: str, new: str, key: str, said: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        sim.load(rewrite(folder, old, new))
    [problem] = caught.value.problems
    assert problem.file.endswith("my-gpu.yaml") and problem.line
    assert ".".join(map(str, problem.path)) == key
    assert said in problem.message


def test_a_changed_file_is_read_again(folder: Path) -> None:
    before = gpu_of(sim.load(folder / "my-service.yaml")).memory_bytes
    after = gpu_of(sim.load(rewrite(folder, "288e9 ", "192e9 "))).memory_bytes
    assert (before, after) == (288e9, 192e9)


def test_measured_kernels_scale_to_it_where_that_is_meant(folder: Path) -> None:
    with pytest.raises(ScenarioError, match="measured on b200_sxm"):
        sim.load(folder / "my-service.yaml", ["profile=b200_sxm/sglang"])
    meant = ["profile=b200_sxm/sglang", "allow_foreign_profile=true"]
    priced = sim.simulate(sim.load(folder / "my-service.yaml", meant)).json()["priced_by"]
    assert priced["scaled"] > 0.9


def test_formats_that_it_lacks_are_refused(folder: Path) -> None:
    rewrite(folder, "fp4_flop_per_s: 15.0e15", "# no FP4 here:")
    with pytest.raises(ScenarioError, match="my-gpu has no FP4"):
        sim.load(folder / "my-service.yaml", ["precision.weights=nvfp4"])
    assert deploy(sim.load(folder / "my-service.yaml"))
