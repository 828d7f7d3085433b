"""Commands name checkpoints that exist, or a placeholder that is plainly one; both are read as the same model."""

import pytest

from sim import catalog
from sim.launch.model_names import _repositories, checkpoint
from sim.launch.read import read_launch
from sim.launch.write import Written, write_launch
from sim.scenario.schema import Scenario

REPOSITORIES = {repo: (model, form) for model, row in _repositories().items() for form, repo in row.items()}
FORMATS = ("bf16", "fp8", "mxfp4", "nvfp4", "int4")
WORKLOAD = {
    "arrivals": {"closed_loop": {"concurrency": 8}},
    "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
    "requests": 8,
}


def written(model: str, form: str, engine: str = "sglang", **more: object) -> Written:
    layout = {"gpus": 64, "tp": 1, "ep": 64} if catalog.model(model).n_routed else {"gpus": 8, "tp": 8}
    data = {
        "model": model,
        "gpu": "gb300_nvl72",
        "engine": engine,
        "workload": WORKLOAD,
        "precision": {"weights": form},
    }
    return write_launch(Scenario.model_validate({**data, "deployment": {"serve": layout}, **more}))


def served(one: Written) -> str:
    words = one.commands[0].split("\n", 1)[1].split()
    return words[words.index({"sglang": "--model-path", "vllm": "serve"}[one.engine]) + 1]


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_a_repository_of_the_table_is_read_as_its_model_and_format(repository: str) -> None:
    model, form = REPOSITORIES[repository]
    found = checkpoint(repository, None)
    assert (catalog.model(found.model).name, found.weights) == (catalog.model(model).name, form)


@pytest.mark.parametrize("model", [*catalog.model_names(), "deepseek-r1-0528", "deepseek-v3.2-exp"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_name_is_known_or_plainly_none(model: str, form: str) -> None:
    one = written(model, form)
    name, told = served(one), any("is known to be published" in said for said in one.cannot)
    assert (name in REPOSITORIES) is not told
    assert name.startswith("/PATH/TO/") is told
    # Fields that do not hold the weights of the format as read are left to the test of repositories.
    read = read_launch(one.text, "gb300_nvl72").scenario
    assert (catalog.model(read["model"]).name, read["precision"]["weights"]) == (
        catalog.model(model).name,
        form,
    )


def test_nvidias_checkpoints_of_v3_2_and_v4() -> None:
    """On Hugging Face: DeepSeek-V3.2-NVFP4 (attention in BF16), DeepSeek-V4-Pro-NVFP4 (attention as published)."""
    v3_2 = {"weights": "nvfp4", "attention": "bf16", "dense": "nvfp4"}
    assert written("deepseek-v3.2", "nvfp4", precision=v3_2).cannot == ()
    assert served(written("deepseek-v3.2", "nvfp4")) == "nvidia/DeepSeek-V3.2-NVFP4"
    v4 = written("deepseek-v4-pro", "nvfp4")
    assert served(v4) == "nvidia/DeepSeek-V4-Pro-NVFP4" and v4.cannot == ()
    precision = read_launch(v4.text, "gb300_nvl72").scenario["precision"]
    assert precision == {"weights": "nvfp4", "attention": "fp8", "dense": "fp8", "kv_cache": "fp8"}


@pytest.mark.parametrize(
    ("model", "form", "name"),
    [
        ("deepseek-v4-pro", "mxfp4", "deepseek-ai/DeepSeek-V4-Pro-0813"),
        ("deepseek-v4-pro", "nvfp4", "nvidia/DeepSeek-V4-Pro-0813-NVFP4"),
        ("deepseek-v4-pro", "fp8", "/PATH/TO/DeepSeek-V4-Pro-0813-FP8"),
        ("deepseek-v4-pro-0813", "mxfp4", "deepseek-ai/DeepSeek-V4-Pro-0813"),
    ],
)
@pytest.mark.parametrize("engine", ["sglang", "vllm"])
def test_dsparks_drafts_need_the_release_that_has_the_drafter(
    model: str, form: str, name: str, engine: str
) -> None:
    """The preview's checkpoint has none: 865 GB on disk, the 0813's 893 (docs/v4.md)."""
    drafts = {"method": "dspark", "draft_tokens": 5, "task": "coding", "thinking": True}
    one = written(model, form, engine, speculation=drafts)
    assert served(one) == name
    read = read_launch(one.text, "gb300_nvl72")
    assert read.scenario["speculation"]["method"] == "dspark"
    assert not any("no drafter of blocks" in told.why for told in read.not_modelled)


@pytest.mark.parametrize(
    ("name", "more", "told"),
    [
        ("DeepSeek-V4-Pro", "", True),
        ("DeepSeek-V4-Pro", " --speculative-draft-model-path deepseek-ai/DeepSeek-V4-Pro-DSpark", False),
        ("DeepSeek-V4-Pro-DSpark", "", False),
        ("DeepSeek-V4-Pro-0813", "", False),
    ],
)
def test_a_preview_without_a_drafter_is_told(name: str, more: str, told: bool) -> None:
    text = f"sglang serve --model-path deepseek-ai/{name} --tp 8 --speculative-algorithm DSPARK{more}"
    read = read_launch(text, "b300")
    assert any("no drafter of blocks" in one.why for one in read.not_modelled) is told
    assert read.scenario["speculation"]["draft_tokens"] == 5
