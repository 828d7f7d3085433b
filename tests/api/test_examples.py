"""Every example of the docs and of `sim`'s own docstring runs, and every scenario in them loads."""

import doctest
import os
import re
import textwrap
from pathlib import Path

import pytest
import yaml

import sim
from sim.planner.points import load_sweep
from sim.planner.question import load_question
from sim.scenario.form import check
from sim.scenario.gpu_file import GpuFile
from sim.scenario.loading import load, parse
from sim.scenario.reader import read
from sim.scenario.schema import Scenario

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(*languages: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in one of the languages."""
    fence = re.compile(rf"^```(?:{'|'.join(languages)})\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text(encoding="utf-8"))]


def run(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run code where the repository's scenarios are, and nothing of it can be overwritten."""
    (folder / "scenarios").symlink_to(ROOT / "scenarios")
    monkeypatch.chdir(folder)
    exec(code, {})


def test_the_example_of_sim_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    doc = sim.__doc__ or ""
    code = textwrap.dedent(
        "\n".join(line for line in doc.splitlines() if line.startswith("    ") or not line)
    )
    assert "sim.simulate" in code
    run(code, tmp_path, monkeypatch)
    assert "usd_per_million_blended" in capsys.readouterr().out
    assert (tmp_path / "out" / "chat" / "run.json").is_file()


@pytest.mark.parametrize(("page", "code"), blocks("python"))
def test_python_of_the_docs_runs(
    page: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(code, tmp_path, monkeypatch)


@pytest.mark.parametrize(("page", "session"), blocks("pycon"))
def test_sessions_of_the_docs_say_what_they_show(page: str, session: str) -> None:
    found = doctest.DocTestParser().get_doctest(session, {}, page, page, 0)
    told: list[str] = []
    result = doctest.DocTestRunner().run(found, out=told.append)
    assert result.attempted and not result.failed, "".join(told)


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_yaml_of_the_docs_is_a_scenario_a_part_of_one_a_sweep_a_plan_or_a_gpu(
    page: str, text: str, tmp_path: Path
) -> None:
    data = yaml.safe_load(text)
    if "memory_bytes" in data:
        assert check(read(text, page), GpuFile)
        return
    if "search" in data:
        (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
        (tmp_path / "plan.yaml").write_text(text)
        assert load_question(tmp_path / "plan.yaml").objectives
        return
    if "base" in data:
        (tmp_path / "scenarios").symlink_to(ROOT / "scenarios")
        (tmp_path / "sweep.yaml").write_text(text)
        assert [
            load_sweep(tmp_path / "sweep.yaml").scenario(p)
            for p in load_sweep(tmp_path / "sweep.yaml").points
        ]
        return
    if set(data) <= set(Scenario.model_fields) and "model" not in data:
        text = f"extends: {os.path.relpath(ROOT / 'scenarios' / 'chat.yaml', tmp_path)}\n{text}"
    for gpu in (block for _, block in blocks("yaml") if block.startswith("# my-gpu.yaml")):
        (tmp_path / "my-gpu.yaml").write_text(gpu)
    (tmp_path / "example.yaml").write_text(text)
    assert load(tmp_path / "example.yaml").scenario.deployment.pools()
    assert parse(text, str(tmp_path / "example.yaml"))
