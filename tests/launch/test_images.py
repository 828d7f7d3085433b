"""The release that a container's image has as its tag."""

import pytest
from launches import launch

from sim.launch.entries import image
from sim.launch.words import Word
from sim.scenario.errors import Place

R1 = "deepseek-ai/DeepSeek-R1"
SGLANG = f"python3 -m sglang.launch_server --model-path {R1} --tp 8"
TRTLLM = f"trtllm-serve {R1} --tp_size 8"
RELEASES = {
    "a CUDA version behind it": (f"docker run lmsysorg/sglang:v0.5.16-cu130 {SGLANG}", "0.5.16"),
    "the image is the command": (f"docker run vllm/vllm-openai:v0.11.0 --model {R1} -tp 8", "0.11.0"),
    "a post-release": (f"docker run lmsysorg/sglang:v0.5.5.post3-cu129-amd64 {SGLANG}", "0.5.5.post3"),
    "a candidate, by srun": (
        f"srun --container-image=nvcr.io/nvidia/tensorrt-llm/release:1.2.0rc1 {TRTLLM}",
        "1.2.0rc1",
    ),
    "as enroot spells it": (
        f"srun --container-image docker://nvcr.io#nvidia/tensorrt-llm/release:1.2.0rc6.post2 {TRTLLM}",
        "1.2.0rc6.post2",
    ),
    "a registry with a port": (f"podman run hub.local:5000/lmsysorg/sglang:v0.5.9 {SGLANG}", "0.5.9"),
    "a digest behind the tag": (f"docker run lmsysorg/sglang:v0.5.9@sha256:0f1e2d {SGLANG}", "0.5.9"),
    "a variable": (f"IMAGE=lmsysorg/sglang:v0.5.12\ndocker run $IMAGE {SGLANG}", "0.5.12"),
    "a shell inside": (
        f"docker run --entrypoint bash vllm/vllm-openai:v0.12.0 -c 'vllm serve {R1} -tp 8'",
        "0.12.0",
    ),
    "another machine": (f"ssh node1 'docker run lmsysorg/sglang:v0.5.9 {SGLANG}'", "0.5.9"),
    "a container that was started before": (
        f"docker run -d --name s lmsysorg/sglang:v0.5.10 sleep infinity\ndocker exec s {SGLANG}",
        "0.5.10",
    ),
    "a Kubernetes file": (
        'containers:\n- name: server\n  image: "lmsysorg/sglang:v0.5.11-cu129"\n  command: [bash, -c]\n'
        f"  args:\n  - |\n    {SGLANG}\n",
        "0.5.11",
    ),
    "no release": (f"docker run lmsysorg/sglang:latest {SGLANG}", None),
    "a nightly": (f"docker run lmsysorg/sglang:nightly-dev-20261101-0f1e2d3c {SGLANG}", None),
    "a digest alone": (f"docker run lmsysorg/sglang@sha256:0f1e2d {SGLANG}", None),
    "no tag": (f"docker run lmsysorg/sglang {SGLANG}", None),
    "a build of one's own": (f"docker run me/sglang-patched:v0.5.16 {SGLANG}", None),
    "two releases": (
        f"docker pull lmsysorg/sglang:v0.5.16\ndocker run lmsysorg/sglang:v0.5.9 {SGLANG}",
        None,
    ),
    "another engine beside it": (f"docker pull vllm/vllm-openai:v0.11.0\n{SGLANG}", None),
    "Dynamo's own release": (
        f"docker run nvcr.io/nvidia/ai-dynamo/sglang-runtime:0.8.0 python3 -m dynamo.sglang --model {R1} --tp 8",
        None,
    ),
}


@pytest.mark.parametrize("case", RELEASES)
def test_the_tag_of_an_image_is_the_release(case: str) -> None:
    text, release = RELEASES[case]
    found = launch(text)
    assert found.scenario.get("engine_version") == release
    if release:
        why = found.json()["reasons"]["engine_version"]
        assert why.startswith("the tag of ") and release in why


def test_what_the_user_says_wins_over_the_image() -> None:
    text = f"docker run lmsysorg/sglang:v0.5.16-cu130 {SGLANG}"
    found = launch(text, engine_version="0.5.9")
    assert found.scenario["engine_version"] == "0.5.9"
    assert found.json()["reasons"]["engine_version"] == "--engine-version 0.5.9"


def test_the_release_of_the_image_decides_the_defaults() -> None:
    """vLLM took 0.9 of the memory until 0.11, and 0.92 in 0.33."""
    fractions = [
        launch(f"docker run vllm/vllm-openai:{tag} --model {R1} -tp 8").scenario["deployment"]["serve"]
        for tag in ("v0.11.0", "v0.33.0")
    ]
    assert [one["memory_fraction"] for one in fractions] == [0.9, 0.92]


def test_images_of_several_releases_are_told() -> None:
    notes = launch(RELEASES["two releases"][0]).notes
    assert "images of sglang 0.5.16, 0.5.9: one release is read; give --engine-version" in notes


@pytest.mark.parametrize(
    "text", ["", "sglang:v0.5.", "sglang:0.5", "/sglang:v0.5.9 x", "xsglang:v0.5.9", "=#:/"]
)
def test_other_words_are_no_images(text: str) -> None:
    assert image(Word(text, Place("command"))) is None
