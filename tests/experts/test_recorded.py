"""Recorded counts: SGLang's JSON and CSV, numpy's archives, and what is refused."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from sim.experts.recorded import read_counts

COUNTS = [[0, 0, 0], [5, 1, 2], [3, 3, 4]]
EXPECTED = np.array([[5.0, 1.0, 2.0], [3.0, 3.0, 4.0]])  # the dense layer, without counts, is left out


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_sglang_json(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", json.dumps({"rank": 0, "logical_count": COUNTS}))
    assert read_counts(file).tolist() == EXPECTED.tolist()


def test_steps_are_summed(tmp_path: Path) -> None:
    file = write(tmp_path / "a.json", json.dumps({"logical_count": [COUNTS, COUNTS]}))
    assert read_counts(file).tolist() == (2 * EXPECTED).tolist()


def test_bare_list(tmp_path: Path) -> None:
    assert read_counts(write(tmp_path / "a.json", json.dumps(COUNTS))).tolist() == EXPECTED.tolist()


def test_sglang_csv(tmp_path: Path) -> None:
    rows = "3,0,5\n3,1,1\n3,2,2\n4,2,4\n4,1,3\n4,0,3\n"
    file = write(tmp_path / "expert_distribution.csv", "layer_id,expert_id,count\n" + rows)
    assert read_counts(file).tolist() == EXPECTED.tolist()


def test_numpy(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", other=np.zeros(3), logical_count=np.array(COUNTS))
    np.save(tmp_path / "b.npy", np.array(COUNTS))
    assert read_counts(tmp_path / "a.npz").tolist() == EXPECTED.tolist()
    assert read_counts(tmp_path / "b.npy").tolist() == EXPECTED.tolist()


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("the pickle was run",))


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "b.npz").write_bytes(pickle.dumps(Bomb()))
    for name in ("a.npy", "b.npz"):
        with pytest.raises(ValueError, match="not a table of expert counts"):
            read_counts(tmp_path / name)


def test_pt_says_how_to_convert(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"json\.dump"):
        read_counts(tmp_path / "dump.pt")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", "expected recorded expert counts as .json, .csv"),
        ("a.json", "{", "not a table"),
        ("a.json", "{}", "logical_count"),
        ("a.json", "[1, 2]", r"expected \(layers, experts\)"),
        ("a.json", "[[1, 2], [3]]", "not a table"),
        ("a.json", "[[1, -2]]", "not negative"),
        ("a.json", "[[1, NaN]]", "finite"),
        ("a.json", "[[0, 0]]", "no layer"),
        ("a.csv", "layer_id,expert_id\n1,2\n", "count"),
        ("a.csv", "layer_id,expert_id,count\n", "count from 0"),
        ("a.csv", "layer_id,expert_id,count\n0,-1,3\n", "count from 0"),
    ],
)
def test_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_counts(write(tmp_path / name, text))
