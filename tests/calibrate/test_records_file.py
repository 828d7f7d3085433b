"""The records file: append-only, whole after a kill, one environment, one writer."""

import json
import os
from dataclasses import replace

import pytest

from calibrate.records import Measurement, RecordFile, RecordsError, point_key, read_measurements
from sim.cost.record import read_records

HERE = {"device": "cpu", "name": "a CPU", "torch": "2.13.0"}
POINT = Measurement(
    operation="gemm",
    shape={"m": 1.0, "n": 2.0, "k": 3.0},
    dtype="bf16",
    us_median=5.0,
    us_p10=4.0,
    us_p90=6.0,
    samples_us=(4.0, 5.0, 6.0),
    backend="torch",
    environment=HERE,
    flop=12.0,
    bytes=22.0,
)


def points(count):
    return [replace(POINT, shape={"m": float(m + 1), "n": 2.0, "k": 3.0}) for m in range(count)]


def test_what_is_written_is_read(tmp_path):
    failed = replace(
        POINT, ok=False, us_median=None, error="RuntimeError: no", samples_us=(), options={"stage": "pre"}
    )
    with RecordFile(tmp_path, HERE) as file:
        file.append(POINT)
        file.append(failed)
    assert read_measurements(file.path) == [POINT, failed]
    with RecordFile(tmp_path, HERE) as again:
        assert again.keys == {POINT.key, failed.key}


def test_the_simulator_reads_the_same_file(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        file.append(POINT)
    (found,) = read_records(file.path)
    assert (found.operation, found.us_median, found.environment) == ("gemm", 5.0, HERE)


def test_each_line_has_the_fields_of_the_contract(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        file.append(POINT)
    raw = json.loads(file.path.read_text())
    fields = [
        "operation",
        "ok",
        "shape",
        "dtype",
        "options",
        "backend",
        "us_median",
        "us_p10",
        "us_p90",
        "samples_us",
        "flop",
        "bytes",
    ]
    assert {*fields, "fraction_of_ceiling", "error", "environment"} <= raw.keys()


def test_a_record_is_on_disk_before_append_returns(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_size))
    with RecordFile(tmp_path, HERE) as file:
        for point in points(2):
            file.append(point)
            assert synced[-1] == file.path.stat().st_size
            assert len(read_measurements(file.path)) == len(synced)


def test_a_line_torn_at_any_byte_costs_only_that_point(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        for point in points(3):
            file.append(point)
    content = file.path.read_bytes()
    before_last = content.rstrip(b"\n").rfind(b"\n") + 1
    for length in range(before_last, len(content), 7):
        file.path.write_bytes(content[:length])
        assert read_measurements(file.path) == points(2)
        with RecordFile(tmp_path, HERE) as again:
            assert len(again.records) == 2
            again.append(points(3)[2])
        assert file.path.read_bytes() == content


def test_a_broken_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        for point in points(3):
            file.append(point)
    lines = file.path.read_text().splitlines()
    file.path.write_text("\n".join([lines[0], lines[1][:30], lines[2], ""]))
    with pytest.raises(RecordsError, match=r"records\.jsonl, line 2: not a record"):
        RecordFile(tmp_path, HERE)
    with pytest.raises(RecordsError):  # and the failed attempt holds no lock
        RecordFile(tmp_path, HERE)


@pytest.mark.parametrize(
    "changed",
    [{"dtype": "x" * 10_000}, {"shape": "wide"}, {"shape": {"m": 1.0}}, {"options": None}, {"us_median": -1.0},
     {"environment": "here"}, {"samples_us": 5}, {"flags": [["x"]]}, {"operation": None}, {"unheard_of": 1}],
)  # fmt: skip
def test_a_value_that_cannot_be_is_an_error_with_its_number(tmp_path, changed):
    with RecordFile(tmp_path, HERE) as file:
        file.append(POINT)
    file.path.write_text(json.dumps(json.loads(file.path.read_text()) | changed) + "\n")
    with pytest.raises(RecordsError, match=r"records\.jsonl, line 1: not a record") as told:
        RecordFile(tmp_path, HERE)
    assert len(str(told.value)) < 500


def test_another_environment_is_refused_and_named(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        file.append(POINT)
    content = file.path.read_bytes()
    with pytest.raises(RecordsError, match=r"another environment \(torch '2.13.0' then, '2.14.1' now\)"):
        RecordFile(tmp_path, HERE | {"torch": "2.14.1"})
    assert file.path.read_bytes() == content


def test_two_calibrations_cannot_write_one_file(tmp_path):
    with RecordFile(tmp_path, HERE), pytest.raises(RecordsError, match="open in another calibration"):
        RecordFile(tmp_path, HERE)
    with RecordFile(tmp_path, HERE):
        pass  # free again


def test_infinity_never_reaches_the_file(tmp_path):
    with RecordFile(tmp_path, HERE) as file:
        with pytest.raises(ValueError, match="JSON compliant"):
            file.append(replace(POINT, deviation=float("inf")))
        assert file.path.read_bytes() == b""


def test_a_point_is_the_same_whatever_the_order_of_its_axes():
    one = point_key("gemm", {"m": 1, "n": 2}, "bf16", {"a": "1", "b": "2"}, "torch")
    assert one == point_key("gemm", {"n": 2.0, "m": 1.0}, "bf16", {"b": "2", "a": "1"}, "torch")
    assert one != point_key("gemm", {"m": 1, "n": 2}, "bf16", {"a": "1", "b": "2"}, "triton")
    assert one != point_key("gemm", {"m": 1, "n": 2}, "fp8", {"a": "1", "b": "2"}, "torch")
