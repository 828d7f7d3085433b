"""Which configuration of a kernel runs: the fastest of those that run at all, tried once per shape."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.kernels import tune  # noqa: E402 (torch is optional)

CONFIGURATIONS = ({"WIDTH": 1}, {"WIDTH": 2}, {"WIDTH": 4}, {"WIDTH": 8})
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture
def ran(monkeypatch):
    """A stand-in for a GPU: width 4 is the fastest, width 8 wants more shared memory than there is."""
    monkeypatch.setattr(tune, "_chosen", {})
    found = []

    def run(WIDTH):
        found.append(WIDTH)

    def milliseconds(run, configuration):
        run(**configuration)
        if configuration["WIDTH"] == 8:
            raise RuntimeError("out of resource: shared memory")
        return {1: 3.0, 2: 2.0, 4: 1.0}[configuration["WIDTH"]]

    monkeypatch.setattr(tune, "_milliseconds", milliseconds)
    return found, run


def test_the_fastest_is_chosen_once_per_shape(ran):
    found, run = ran
    tune.launch(("gemm", 1), CONFIGURATIONS, run, GPU)
    assert found == [1, 2, 4, 8, 4]  # all tried, then the choice
    tune.launch(("gemm", 1), CONFIGURATIONS, run, GPU)
    assert found[5:] == [4]  # nothing is tried inside a timed call or a capture
    tune.launch(("gemm", 2), CONFIGURATIONS, run, GPU)
    assert len(found) == 11


def test_where_none_runs_the_reason_is_told(ran):
    with pytest.raises(RuntimeError, match="shared memory"):
        tune.launch(("gemm", 1), CONFIGURATIONS[3:], ran[1], GPU)


def test_without_a_gpu_the_first_runs(ran):
    tune.launch(("gemm", 1), CONFIGURATIONS, ran[1], CPU)
    assert ran[0] == [1]
