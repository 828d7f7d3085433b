"""How long a pool worked, and how much of it inside the measurement window."""

import pytest

from sim.cluster.ledger import Meter
from sim.cluster.setup import PoolSetup
from sim.cluster.window import Window

SETUP = PoolSetup(workers=2, gpus=8, dp=1, max_sequences=1, chunk_tokens=1, kv_blocks=1)


@pytest.mark.parametrize(
    ("start_s", "end_s", "inside_s", "after_s"),
    [
        (0.0, 1.0, 0.0, 0.0),
        (0.0, 2.5, 1.5, 0.0),
        (1.0, 3.0, 2.0, 0.0),
        (2.5, 4.5, 0.5, 1.5),
        (3.0, 5.0, 0.0, 2.0),
        (0.5, 7.0, 2.0, 4.0),
    ],
)
def test_work_counts_with_the_part_that_lies_in_the_window(start_s, end_s, inside_s, after_s):
    """A window from 1 to 3 s; where it tells nothing steady, what comes after it counts, too."""
    window = Window(1.0, 3.0)
    meter = Meter(SETUP, window)
    meter.work(start_s, end_s, "decode", end_s - start_s)
    assert meter.record(0, 0).busy_in_window_s == inside_s / SETUP.workers
    assert meter.record(0, 0).busy_gpu_s == {"decode": (end_s - start_s) * SETUP.gpus}
    window.steady = False
    assert meter.record(0, 0).busy_in_window_s == (inside_s + after_s) / SETUP.workers


def test_a_window_that_ends_before_the_warm_up_has_no_work_in_it():
    """But from the end of the warm-up on, 2 s of it, where the whole run is measured."""
    window = Window(2.0, 1.0)
    meter = Meter(SETUP, window)
    meter.work(1.5, 4.0, "decode", 2.5)
    assert meter.record(0, 0).busy_in_window_s == 0.0
    window.steady = False
    assert meter.record(0, 0).busy_in_window_s == 2.0 / SETUP.workers
