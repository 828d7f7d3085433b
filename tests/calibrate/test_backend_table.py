"""docs/CALIBRATION.md and the README list every backend, and claim a run on a GPU for none."""

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.kernels.families import FAMILIES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "CALIBRATION.md"


def rows():
    table = PAGE.read_text().partition("| family | backend |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_every_backend_of_every_family_has_its_row():
    listed = {(family, backend) for family, backend, *_ in rows()}
    assert listed == {(kernel, b.name) for kernel, family in FAMILIES.items() for b in family.backends}


def test_each_row_names_the_package_and_the_gpus_of_its_backend():
    for kernel, name, takes, needs, checked in rows():
        for backend in (b for b in FAMILIES[kernel].backends if b.name == name):
            assert (backend.needs.modules[0] if backend.needs else "torch").split(".")[0] in needs
            for major in backend.capabilities:
                assert f"{major}.x" in takes, (kernel, name)
            assert ("CPU" in checked) == backend.cpu, (kernel, name)
            assert checked == "interpreter" if name == "triton" else True


def test_the_readme_lists_every_backend_that_has_not_run_on_a_gpu():
    """All but gloo, which exchanges between CPUs."""
    text = (ROOT / "README.md").read_text().partition("Not yet run on a GPU")[2].partition("\n\n`make")[0]
    told = {
        (family, name)
        for name, families in re.findall(r"^- `(\w+)`: (.*)$", text, re.MULTILINE)
        for family in families.split(", ")
    }
    assert told == {
        (k, b.name) for k, family in FAMILIES.items() for b in family.backends if b.name != "gloo"
    }
