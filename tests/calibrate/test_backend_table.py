"""docs/CALIBRATION.md lists every backend, and claims a run on a GPU for none."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.kernels.families import FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "CALIBRATION.md"


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
