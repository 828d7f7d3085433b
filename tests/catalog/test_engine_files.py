"""Releases in their order, what each changed, and files that say what no engine has."""

import re

import pytest

from sim import catalog
from sim.catalog.engines import checked, described, since
from sim.catalog.facts import version

ORDER = (
    "0.5.6", "0.5.6.post1", "0.5.10", "1.1.0.dev3", "1.1.0a1", "1.1.0rc2", "1.1.0rc2.post2", "1.1.0rc10", "1.1",
    "1.1.0.post1", "v1.2.0rc6", "1.2.0", "1.10",
)  # fmt: skip


def test_a_candidate_comes_before_its_release() -> None:
    """The order of PEP 440: https://peps.python.org/pep-0440/#summary-of-permitted-suffixes-and-relative-ordering"""
    backwards = ORDER[::-1]
    assert sorted(backwards, key=version) == list(ORDER)
    assert version("1.3") == version("1.3.0") == version("v1.3.0")


@pytest.mark.parametrize("name", catalog.engine_names())
def test_a_scenario_without_a_release_gets_one_that_is_described(name: str) -> None:
    oldest, default, newest = (described(name)[one] for one in ("oldest", "default", "newest"))
    assert version(oldest) <= version(default) <= version(newest)
    assert catalog.engine(name).release == default
    assert catalog.release_taken(name, default) is None


@pytest.mark.parametrize(
    ("release", "fp8_s", "nvfp4_s"),
    [("1.1", 5.12e-3, 1.78e-3), ("1.2.0rc5", 5.12e-3, 1.78e-3), ("1.2", 1.87e-3, 0.0), (None, 0.0, 0.0)],
)
def test_host_time_of_tensorrt_llm_by_release_and_weights(
    release: str | None, fp8_s: float, nvfp4_s: float
) -> None:
    """What docs/validation.md says was fitted on the training half."""
    found = [catalog.engine("trtllm", release, weights).host_overhead_s for weights in ("fp8", "nvfp4")]
    assert found == [fp8_s, nvfp4_s]
    assert catalog.engine("trtllm", release, "bf16").host_overhead_s == fp8_s


def test_which_release_a_rule_is_of() -> None:
    assert [since("sglang", release, "draft_host_s") for release in ("0.4.9", "0.5.11", "0.5.23")] == [
        "0.4.6",
        "0.5.11",
        "0.5.11",
    ]


FACT = "{value: 1, unit: step, source: vllm}"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("rule:\n  a: 1\n", "f.yaml:1: rule: unknown key; expected rules"),
        (
            f"rules:\n  cuda_graphs: {FACT}\n  cuda_grafs: {FACT}\n",
            "f.yaml:3: rules.cuda_grafs: unknown key; expected cuda_graphs",
        ),
        (f"launch:\n  seat: {FACT}\n", "f.yaml:2: launch.seat: unknown key; expected seats"),
        (
            "rules:\n  cuda_graphs: true\n",
            "f.yaml:2: rules.cuda_graphs: expected a value, its unit and its source",
        ),
        (
            "rules:\n  launch_s: {value: 1, unit: s}\n",
            "f.yaml:2: rules.launch_s: expected a value, its unit and its source",
        ),
        (
            "rules:\n  launch_s: {value: 1, unit: s, source: vllm, nota: x}\n",
            "f.yaml:2: rules.launch_s: nota: unknown key; expected note",
        ),
        (
            f'since:\n  "0.5":\n    launch_s: {FACT}\n  next:\n    launch_s: {FACT}\n',
            'f.yaml:4: since.next: expected a release, such as "0.5.14"',
        ),
        (
            f'since:\n  "0.5":\n    launch_s: {FACT}\n  "0.6":\n    lunch_s: {FACT}\n',
            "f.yaml:5: since.0.6.lunch_s: unknown key; expected launch_s",
        ),
        (
            "rules:\n  prompt_pool_experts: {value: {blackwell deepgem: 2.0}, unit: ratio, source: s}\n",
            "f.yaml:2: rules.prompt_pool_experts: blackwell deepgem: unknown word deepgem; expected deepgemm",
        ),
        (
            "rules:\n  prompt_pool_experts: {value: {blackwel deepgemm fp8 ep: 2.0}, unit: ratio, source: s}\n",
            "f.yaml:2: rules.prompt_pool_experts: blackwel deepgemm fp8 ep: unknown word blackwel; expected blackwell",
        ),
        (
            "rules:\n  normal_mode_experts: {value: deepgem, unit: name, source: s}\n",
            "f.yaml:2: rules.normal_mode_experts: unknown; expected deepgemm",
        ),
        (f"releases:\n  old: {FACT}\n", "f.yaml:2: releases.old: unknown key; expected oldest"),
    ],
)
def test_what_no_engine_has_is_refused_with_its_line(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)):
        checked("f.yaml", text)
