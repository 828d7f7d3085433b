"""Timing: percentiles by hand, rotation of inputs, flags."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from calibrate import environment
from calibrate.environment import Device, Watch, summarize
from calibrate.timing import (
    MAX_COPIES,
    MIN_SAMPLES,
    SPIN_CYCLES_PER_S,
    Timing,
    copies_needed,
    percentile,
    replays_needed,
    spin_cycles,
    still_warm,
    time_calls,
)

GB = 10**9
H100 = Device("cuda", "H100", 1, 80 * GB, 50 * 10**6, (9, 0), 132)


def test_percentiles_by_hand():
    samples = tuple(float(n) for n in range(11))  # 0 to 10: the p-th percentile is p / 10
    timing = Timing(samples, "clock")
    assert (timing.p10_us, timing.median_us, timing.p90_us) == (1, 5, 9)
    assert percentile((3.0,), 90) == 3


@pytest.mark.parametrize(
    ("samples", "unstable"),
    [
        ((100.0,) * 10, False),
        ((100.0,) * 10 + (900.0,), False),  # one outlier of eleven lies beyond p90
        ((100.0,) * 5 + (120.0,) * 5, True),  # p90 - p10 = 20 of a median of 110
    ],
)
def test_a_point_is_unstable_when_its_middle_80_percent_spread_by_more_than_a_tenth(samples, unstable):
    assert Timing(samples, "graph").unstable is unstable


@pytest.mark.parametrize(
    ("touched_bytes", "held_bytes", "copies"),
    [
        (10 * 10**6, 10 * 10**6, 15),  # 3 x 50 MB of cache / 10 MB
        (
            40 * GB,
            40 * GB,
            1,
        ),  # larger than the cache, and a second copy would not fit into a quarter of the memory
        (100, 100, MAX_COPIES),
        (150 * 10**6, 150 * 10**6, 1),
        (149 * 10**6, 149 * 10**6, 2),
        (
            10 * 10**6,
            344 * 10**6,
            15,
        ),  # eight queries' 2,048 entries of 656 bytes out of caches of 64k entries
        (10 * 10**6, 4 * GB, 5),  # 80 GB / 4 hold five of them
    ],
)
def test_what_the_copies_calls_touch_covers_the_cache_three_times(touched_bytes, held_bytes, copies):
    assert copies_needed(touched_bytes, held_bytes, H100) == copies


def test_the_copies_take_turns_on_a_cpu(cpu):
    called = []
    calls = [lambda n=n: called.append(n) for n in range(3)]

    timing = time_calls(calls, 2 * cpu.l2_bytes, cpu, seconds=0.001)

    assert timing.method == "clock"
    assert not timing.warm
    assert len(timing.samples_us) >= MIN_SAMPLES
    assert all(sample >= 0 for sample in timing.samples_us)
    timed = called[-len(timing.samples_us) :]
    assert timed == [n % 3 for n in range(len(timed))]


def test_calls_whose_inputs_fit_into_the_cache_together_are_called_warm(cpu):
    quarter = cpu.l2_bytes // 4
    assert time_calls([lambda: None] * 4, quarter, cpu, seconds=0.0).warm
    assert not time_calls([lambda: None] * 5, quarter, cpu, seconds=0.0).warm


def test_small_calls_get_enough_copies_to_be_cold():
    """256 KB of the 50 MB of an H100's L2: 572 copies would cover it three times; 256 of them already exceed it."""
    touched = 256 * 1024
    copies = copies_needed(touched, touched, H100)
    assert copies == MAX_COPIES
    assert not still_warm(copies, touched, H100)
    assert still_warm(copies_needed(64 * 1024, 64 * 1024, H100), 64 * 1024, H100)


def test_two_events_are_a_millisecond_apart_and_the_host_has_queued_everything_by_then():
    assert replays_needed(40e-6) == 25  # 25 replays of 40 us are 1 ms
    assert replays_needed(5e-3) == 1
    launch_s = 10e-6  # of a graph, by the host
    for replays in (1, 25, 400):
        assert spin_cycles(replays) / SPIN_CYCLES_PER_S > replays * launch_s


def test_replays_follow_a_spinning_kernel_between_one_pair_of_events(monkeypatch):
    """A stand-in for a GPU that counts what the host queues: each sample spins first, then all replays in a row."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    queued = []

    class Event:
        def __init__(self, enable_timing):
            self.at = None

        def record(self):
            queued.append("event")
            self.at = queued.count("replay")

        def synchronize(self):
            queued.append("wait")

        def elapsed_time(self, end):
            return 0.2 * (end.at - self.at)  # ms: a replay takes 200 us

    class Graph:
        def replay(self):
            queued.append("replay")

        def reset(self):
            queued.append("reset")

    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name, stand_in in {
        "Event": Event, "CUDAGraph": Graph, "Stream": lambda: stream, "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(), "graph": lambda *_, **__: nullcontext(), "synchronize": lambda: None,
        "_sleep": lambda _: queued.append("spin"),
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)

    timing = time_calls([lambda: None] * 16, H100.l2_bytes, H100, seconds=0.01)

    assert timing.method == "graph"
    assert timing.median_us == pytest.approx(200 / 16)  # sixteen calls a replay
    last = queued[: queued.index("reset")][-9:]
    assert last == ["spin", "event", *["replay"] * 5, "event", "wait"]  # five replays are 1 ms


def test_throttling_is_named_by_nvmls_bits():
    samples = [
        {"sm_clock_mhz": "1980", "power_w": "400.5", "temperature_c": "50", "throttle": "0x0000000000000000"},
        {"sm_clock_mhz": "1410", "power_w": "699.9", "temperature_c": "81", "throttle": "0x0000000000000024"},
    ]
    assert summarize(samples) == {
        "sm_clock_mhz": 1410,
        "power_w": 699.9,
        "temperature_c": 81,
        "throttled": ["power cap", "software thermal slowdown"],  # bits 0x04 and 0x20
    }


def test_an_idle_gpu_or_one_that_does_not_tell_is_not_throttled():
    assert summarize([]) == {}
    assert summarize([{"sm_clock_mhz": "[N/A]", "throttle": "0x0000000000000001"}]) == {}


@pytest.mark.parametrize("uuid", ["6f2a", "GPU-6f2a"])
def test_nvidia_smi_is_asked_about_the_gpu_that_torch_sees(monkeypatch, uuid):
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=uuid))
    command = environment._query({"sm_clock_mhz": "clocks.sm", "power_w": "power.draw"}, "-lms", "100")
    assert command[:4] == ["nvidia-smi", "-i", "GPU-6f2a", "--query-gpu=clocks.sm,power.draw"]
    assert command[-2:] == ["-lms", "100"]


@pytest.mark.parametrize(
    "known", ["clocks_event_reasons.active", "clocks_throttle_reasons.active", "neither"]
)
def test_the_watch_asks_for_throttling_by_the_name_that_the_driver_knows(monkeypatch, tmp_path, known):
    """A stand-in for nvidia-smi that refuses the fields it does not know, as the real one does."""
    torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="6f2a"))
    begin = time.monotonic()
    script = tmp_path / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n"
        f'case "$*" in *reasons.active*) case "$*" in *{known}*) ;; *) exit 2;; esac; more=", 0x04";; esac\n'
        'echo "1410, 699.9, 81$more"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    with Watch(H100) as watch:
        for _ in range(100):
            if found := watch.conditions(begin):
                break
            time.sleep(0.05)

    assert (found["sm_clock_mhz"], found["power_w"], found["temperature_c"]) == (1410, 699.9, 81)
    assert found.get("throttled") == (None if known == "neither" else ["power cap"])
