"""Low-latency exchange beyond the EP sizes of a profile: grows as DeepEP's table, and nothing else changes."""

import pytest

from sim.catalog import efficiency
from sim.cost.exchange import WideExchange
from sim.cost.latency import Latency
from sim.explain import explain
from sim.model.operations import Operation
from sim.scenario.schema import Scenario

TABLE = efficiency().low_latency_all_to_all


class Behind:
    """Prices an exchange at 1 us per token, whatever the EP."""

    def __init__(self, priced_by: str = "measured") -> None:
        self.priced_by = priced_by
        self.asked: list[dict[str, float]] = []

    def knows(self, operation: Operation) -> bool:
        return True

    def price(self, operation: Operation) -> Latency:
        self.asked.append(dict(operation.shape))
        return Latency(operation.shape["m"] * 1e-6, self.priced_by, "a test", "link")


def exchange(kernel: str, ep: float, nodes: float, mode: str = "low_latency") -> Operation:
    shape = {
        "m": 128.0,
        "ep": ep,
        "nodes": nodes,
        "gpus": ep / nodes,
        "k": 7168.0,
        "top_k": 8.0,
        "experts": 256.0,
    }
    return Operation("x", "exchange", kernel, shape, "fp8", 0.0, 1e6, options={"mode": mode})


def seconds(kernel: str, ep: float) -> float:
    return WideExchange(Behind(), TABLE).price(exchange(kernel, ep, ep / 8)).seconds


@pytest.mark.parametrize("kernel", ["dispatch", "combine"])
def test_at_the_sizes_of_the_table_it_grows_as_the_table(kernel: str) -> None:
    times = TABLE.dispatch_s if kernel == "dispatch" else TABLE.combine_s
    for ep in (128, 256):
        assert seconds(kernel, ep) == pytest.approx(128e-6 * times[ep] / times[64])


@pytest.mark.parametrize("kernel", ["dispatch", "combine"])
def test_between_them_it_lies_between_and_beyond_them_it_stays(kernel: str) -> None:
    assert seconds(kernel, 64) < seconds(kernel, 96) < seconds(kernel, 128)
    assert seconds(kernel, 512) == seconds(kernel, 256)


def test_the_model_behind_is_asked_for_the_widest_it_measured() -> None:
    behind = Behind()
    latency = WideExchange(behind, TABLE).price(exchange("combine", 128, 16))
    assert [(shape["ep"], shape["nodes"]) for shape in behind.asked] == [(64, 8)]
    assert latency.priced_by == "extrapolated"
    assert "beyond EP64" in latency.source


@pytest.mark.parametrize(
    "operation",
    [
        exchange("combine", 64, 8),
        exchange("dispatch", 128, 16, mode="normal"),
        exchange("combine", 72, 1),  # a rack
    ],
)
def test_what_was_measured_and_what_stays_in_a_rack_is_left_alone(operation: Operation) -> None:
    assert WideExchange(Behind(), TABLE).price(operation).seconds == 128e-6


def test_a_roofline_has_its_own_growth() -> None:
    assert WideExchange(Behind("analytic"), TABLE).price(exchange("combine", 128, 16)).seconds == 128e-6


@pytest.mark.parametrize("engine", ["sglang", "trtllm"])
def test_an_exchange_in_a_rack_is_priced_over_its_nvlink(engine: str) -> None:
    """GB300's racks have GB200's NVLink and no table of it: both take the one that GB200 has, and name it."""
    seconds = {}
    for gpu in ("gb200", "gb300"):
        scenario = Scenario.model_validate(
            {
                "model": "deepseek-r1", "gpu": gpu, "engine": engine, "precision": {"weights": "fp8"},
                "deployment": {"serve": {"gpus": 32, "ep": 32}}, "price": {"usd_per_gpu_hour": 1.0},
                "workload": {
                    "arrivals": {"all_at_once": {}}, "requests": 1,
                    "lengths": {"input": {"constant": 9}, "output": {"constant": 9}},
                },
            }
        )  # fmt: skip
        told = {o["name"]: o for o in explain(scenario, "decode", 16, 1024).json()["operations"]}
        moves = [o for name, o in told.items() if name.startswith(("dispatch", "combine"))]
        assert len(moves) == 2
        assert all("gb200_nvl72/trtllm: nvlink_two_sided" in o["source"] for o in moves)
        seconds[gpu] = sum(o["seconds"] for o in moves)
    assert seconds["gb300"] == pytest.approx(seconds["gb200"])
