"""A calibration killed at any moment and started again ends with the same points, none twice, none lost."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from calibrate.records import Measurement, RecordFile, point_key, read_measurements
from calibrate.session import MOST_DEATHS, Session

HERE = {"device": "none"}


@dataclass(frozen=True)
class Number:
    """A point that is a number."""

    value: int

    @property
    def key(self):
        return point_key("a number", {"bytes": self.value}, "bf16", {}, "none")


def measured(point, records=(), **fields):
    return Measurement(
        operation="a number",
        shape={"bytes": float(point.value)},
        dtype="bf16",
        us_median=1.0,
        backend="none",
        environment=HERE,
        **fields,
    )


def gave_up(point, reason):
    return measured(point, ok=False, error=reason)


def values(path):
    return [int(record.shape["bytes"]) for record in read_measurements(path)]


CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_session_resumes import HERE, Number, gave_up, measured
from calibrate.records import RecordFile
from calibrate.session import Session

def slowly(point, records):
    time.sleep(0.002)
    return measured(point, error="x" * 20000)  # long lines make torn ones likelier

with RecordFile(Path({folder!r}), HERE) as file:
    print("started", flush=True)
    for _ in Session([Number(n) for n in range(120)], file).run(slowly, gave_up):
        pass
"""


def test_killed_at_random_moments(tmp_path):
    code = CHILD.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    moments = random.Random(1)
    starts, kills = 0, 0
    while True:
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ)
        starts += 1
        assert child.stdout.readline() == b"started\n"
        if starts <= 6:
            time.sleep(moments.uniform(0, 0.08))
            child.send_signal(signal.SIGKILL)
        status = child.wait()
        child.stdout.close()
        kills += status == -signal.SIGKILL
        if status == 0:
            break
    assert kills >= 3
    found = values(tmp_path / "records.jsonl")
    assert sorted(found) == list(range(120))
    assert max(Counter(found).values()) == 1
    assert all(record.ok for record in read_measurements(tmp_path / "records.jsonl"))
    assert not (tmp_path / "in_flight.json").exists()


def test_only_missing_points_are_measured_and_each_once(tmp_path):
    asked = []

    def measure(point, records):
        asked.append(point.value)
        return measured(point)

    with RecordFile(tmp_path, HERE) as file:
        list(Session([Number(1), Number(2), Number(1)], file).run(measure, gave_up))
    with RecordFile(tmp_path, HERE) as file:
        list(Session([Number(n) for n in (0, 1, 2, 3)], file).run(measure, gave_up))
    assert asked == [1, 2, 0, 3]
    assert values(file.path) == [1, 2, 0, 3]


def test_a_failed_point_is_recorded_and_not_tried_again(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        list(Session([Number(1)], file).run(lambda p, r: gave_up(p, "wrong"), gave_up))
    with RecordFile(tmp_path, HERE) as file:
        assert Session([Number(1)], file).pending == []
        assert file.records[0].us_median is not None or not file.records[0].ok


def test_out_of_time_leaves_the_rest_for_the_next_run(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        session = Session([Number(n) for n in range(5)], file)
        assert list(session.run(measured, gave_up, seconds=0.0)) == []
        assert len(session.pending) == 5
        next(session.run(measured, gave_up, seconds=60.0))
        assert [point.value for point in session.pending] == [1, 2, 3, 4]


class Killed(BaseException):
    """As far as the files go, what a kill leaves behind."""


def test_a_point_that_keeps_ending_the_process_is_given_up(tmp_path):
    def dies(point, records):
        if point.value == 1:
            raise Killed
        return measured(point)

    for _ in range(MOST_DEATHS):
        with RecordFile(tmp_path, HERE) as file, pytest.raises(Killed):
            list(Session([Number(0), Number(1), Number(2)], file).run(dies, gave_up))
    with RecordFile(tmp_path, HERE) as file:
        list(Session([Number(0), Number(1), Number(2)], file).run(dies, gave_up))
    found = read_measurements(file.path)
    assert [(record.shape["bytes"], record.ok) for record in found] == [(0, True), (1, False), (2, True)]
    assert found[1].error == "ended the process 3 times"


def test_the_ceilings_measured_so_far_are_handed_to_the_next_point(tmp_path):
    seen = []

    def measure(point, records):
        seen.append(len(records))
        return measured(point)

    with RecordFile(tmp_path, HERE) as file:
        list(Session([Number(n) for n in range(3)], file).run(measure, gave_up))
    assert seen == [0, 1, 2]


def test_stopping_by_ctrl_c_is_not_held_against_the_point(tmp_path):
    def stopped(point, records):
        raise KeyboardInterrupt

    for _ in range(MOST_DEATHS + 1):
        with RecordFile(tmp_path, HERE) as file, pytest.raises(KeyboardInterrupt):
            list(Session([Number(0)], file).run(stopped, gave_up))
    with RecordFile(tmp_path, HERE) as file:
        (record,) = Session([Number(0)], file).run(measured, gave_up)
    assert record.ok
