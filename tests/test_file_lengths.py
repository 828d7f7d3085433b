"""The shape of the source: files that a reader can hold in mind, and test modules that pytest can tell apart."""

from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("sim", "calibrate", "dashboard", "tests", "docs")
MOST_LINES = 300


def test_no_python_file_is_longer_than_a_reader_can_hold_in_mind() -> None:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    lines = {str(file.relative_to(ROOT)): file.read_bytes().count(b"\n") for file in files}
    assert len(lines) > 100
    assert {file: n for file, n in lines.items() if n > MOST_LINES} == {}, "split it by meaning"


def test_no_two_modules_of_the_tests_share_a_name() -> None:
    """The folders are no packages, so a module is imported by its base name; only `conftest.py` may have namesakes."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file in sorted((ROOT / "tests").rglob("*.py")):
        homes[file.name].append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1 and name != "conftest.py"} == {}
