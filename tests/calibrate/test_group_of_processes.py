"""Communication runs in one process per GPU; here two processes on the CPU, with gloo in NCCL's place."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.group import Group
from sim.catalog import model
from sim.model.exchanges import collective

V32 = model("deepseek-v3.2")


@pytest.fixture(scope="module")
def group():
    made = Group(2, Device("cpu", "a CPU", 2, 2**34, 2**20))
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "reduce_scatter"])
def test_collectives_agree_with_the_inputs_of_all_ranks(kind, group):
    deviation, timing = group.run(Case(collective(kind, kind, 4096, 2), V32), "gloo", 1e-6, 0.001)
    assert deviation == 0
    assert timing.method == "clock"
    assert len(timing.samples_us) >= 5


def test_nothing_is_timed_beyond_the_tolerance(group):
    case = Case(collective("all_reduce", "x", 4096, 2), V32)
    assert group.run(case, "gloo", -1.0, 0.001) == (0.0, None)


def test_an_error_in_a_rank_reaches_the_parent_and_ends_the_group(group):
    case = Case(collective("all_reduce", "x", 4096, 2), V32)
    with pytest.raises(RuntimeError, match=r"rank [01]: StopIteration"):
        group.run(case, "a backend that nobody has", 1e-6, 0.001)
    assert not group.alive
