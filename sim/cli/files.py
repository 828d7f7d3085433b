"""What a command leaves behind: files that are never half-written, and JSON as the last line of stdout."""

import errno
import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.report.run import Run


def prepare(folder: Path) -> None:
    """Find out before a long run whether its result can be written."""
    for path in (folder, *folder.parents):
        if path.is_file():
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(path))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder if folder.exists() else folder.parent):
        return


def save(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary folder, then move its files into `folder`: nothing half-written is ever there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        write(Path(temporary))
        folder.mkdir(exist_ok=True)
        for file in Path(temporary).iterdir():
            file.replace(folder / file.name)


def writer(name: str, data: Any) -> Callable[[Path], object]:
    """A `write` for `save`: one JSON file."""
    text = json.dumps(data, indent=2, allow_nan=False) + "\n"
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def page(results: "Mapping[str, Run]") -> Callable[[Path], object]:
    """A `write` for `save`: the results as one HTML page, `report.html`."""
    from sim.report.html import write_report

    return lambda folder: write_report(results, folder / "report.html")


def print_json(data: dict[str, Any]) -> None:
    """One line of JSON on stdout, which must be its last."""
    print(json.dumps(data, allow_nan=False), flush=True)
