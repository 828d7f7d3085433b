"""What a command leaves behind: files that are never half-written, and JSON as the last line of stdout."""

import errno
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.saving import PREFIX, whole_folder

if TYPE_CHECKING:
    from sim.report.run import Run


RESULT, COMPARISON, PAGE = "run.json", "comparison.json", "report.html"
"""Files of a run, and of several, in the folder of `--out`."""
SCENARIO = "scenario.yaml"
TABLES = ("requests.parquet", "histograms.parquet")
"""Of which a run has one."""


def prepare(folder: Path) -> None:
    """Find out before a long run whether its result can be written."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(path))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=folder if folder.exists() else folder.parent):
        return


def spare(read: Iterable[Path], written: Iterable[Path]) -> None:
    """Raises FileExistsError where a result would take the place of a file that it is made from."""
    targets = [*written]
    for file in read:
        if any(_same(file, target) for target in targets):
            raise FileExistsError(errno.EEXIST, "is read, and the result would take its place", str(file))


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):  # one of them is not there
        return False


def save(folder: Path, write: Callable[[Path], object], last: str = "", ours: Collection[str] = ()) -> None:
    """Let `write` fill a temporary folder, then put its files into `folder`: nothing half-written is ever there.

    Who finds the file `last` finds the others. `ours`: what earlier results left there and this one need not have.
    """
    with whole_folder(folder, last, ours) as made:
        write(made)


def writer(name: str, data: Any) -> Callable[[Path], object]:
    """A `write` for `save`: one JSON file."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def page(results: "Mapping[str, Run]") -> Callable[[Path], object]:
    """A `write` for `save`: the results as one HTML page."""
    from sim.report.html import write_report

    return lambda folder: write_report(results, folder / PAGE)


def print_json(data: dict[str, Any]) -> None:
    """One line of JSON on stdout, which must be its last."""
    print(json.dumps(data, allow_nan=False), flush=True)
