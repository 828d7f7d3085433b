"""Timing: percentiles by hand, rotation of inputs, flags."""

import time
from types import SimpleNamespace

import pytest

from calibrate import environment
from calibrate.environment import Device, Watch, summarize
from calibrate.timing import MAX_COPIES, MIN_SAMPLES, Timing, copies_needed, percentile, time_calls

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

    timing = time_calls(calls, cpu, seconds=0.001)

    assert timing.method == "clock"
    assert len(timing.samples_us) >= MIN_SAMPLES
    assert all(sample >= 0 for sample in timing.samples_us)
    timed = called[-len(timing.samples_us) :]
    assert timed == [n % 3 for n in range(len(timed))]


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
