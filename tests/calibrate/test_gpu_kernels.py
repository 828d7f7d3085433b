"""On a GPU: every backend that is installed agrees with its reference, and one point of each family is timed."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.checks import CASES, name, points
from calibrate.environment import Watch, describe, find_device
from calibrate.kernels.families import FAMILIES
from calibrate.measure import Bench
from calibrate.trial import Point, answering
from calibrate.worker import Worker

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU on this machine"),
]


@pytest.fixture(scope="module")
def bench():
    device = find_device("cuda")
    with Watch(device) as watch:
        bench = Bench(device, describe(device), watch, Worker(answering, device))
        yield bench
        bench.close()


@pytest.mark.parametrize("point", list(points()), ids=name)
def test_the_kernel_agrees_and_is_timed(point, bench):
    if reason := point.backend.refuses(point.case, bench.device):
        pytest.skip(f"{point.backend.name} {reason}")
    record = bench.measure(point, [])
    assert record.ok, record.error
    assert record.us_median > 0
    assert record.method in ("graph", "events")


def test_a_graph_times_a_kernel_without_its_launch(bench):
    """An empty kernel in a graph takes a few microseconds at most; with launches it would take more."""
    case = CASES[0]
    record = bench.measure(Point(case, FAMILIES["launch"].backends[0]), [])
    assert record.method == "graph"
