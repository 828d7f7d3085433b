"""`make gpu-check` needs torch and Triton alone: nothing else is imported, and a CPU shows the whole path."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

BARE = """
import sys

class OnlyTorchAndTriton:
    '''Forbids every import of a package that is neither theirs, their dependency nor ours.'''

    ALLOWED = {allowed!r}

    def find_spec(self, name, path=None, target=None):
        root = name.partition('.')[0]
        if root in sys.stdlib_module_names or root in self.ALLOWED:
            return None
        raise ModuleNotFoundError(f"{{root}} is not on this machine", name=root)

sys.meta_path.insert(0, OnlyTorchAndTriton())
"""
ALLOWED = ["calibrate", "sim", "torch", "torchgen", "triton", "typing_extensions", "sympy", "mpmath", "filelock",
           "networkx", "jinja2", "markupsafe", "fsspec", "setuptools", "functorch", "sitecustomize"]  # fmt: skip


@pytest.fixture
def bare(tmp_path):
    """Run code in an interpreter that has nothing but torch, what torch itself needs, and Triton."""
    (tmp_path / "sitecustomize.py").write_text(BARE.format(allowed=ALLOWED))

    def run(*arguments):
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path.cwd())])
        environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "0"}
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
            timeout=600,
        )

    return run


def test_the_check_runs_with_torch_and_triton_alone(bare, tmp_path):
    """No time for the comparison, a few points of the calibration; the process of its points is as bare."""
    out = tmp_path / "out"
    arguments = ("--device", "cpu", "--minutes", "0.15", "--check-minutes", "0", "--out", str(out))
    done = bare("-m", "calibrate.bare", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    assert records[0]["operation"] == "launch"
    assert all(record["ok"] for record in records), [r["error"] for r in records]
    assert "BF16 GEMM" in done.stdout
    assert "Not measured yet" in done.stdout


def test_what_only_a_gpu_runs_needs_no_other_package(bare):
    done = bare("-c", "import calibrate.layer, calibrate.engine.check")
    assert done.returncode == 0, done.stderr


def test_the_hook_forbids_what_it_says(bare):
    done = bare("-c", "import numpy")
    assert "numpy is not on this machine" in done.stderr
