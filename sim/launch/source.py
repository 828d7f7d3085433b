"""What a user names -> text: a launch command itself, a file of them, or standard input."""

import sys
from pathlib import Path

from sim.launch.words import fail
from sim.scenario.errors import Place
from sim.scenario.reader import exists, read_file, similar_file


def text_of(source: str) -> tuple[str, str, Path]:
    """The text, what messages call it, and the folder of the files that it names.

    Raises ScenarioError where a file is named that is not there.
    """
    if source == "-":
        return sys.stdin.read(), "standard input", Path()
    path = Path(source)
    if len(source.split()) > 1 and not exists(path):
        return source, "command", Path()
    if exists(path):
        return read_file(path, source), source, path.parent
    raise fail(Place(source), f"no such file{similar_file(path)}; a launch command has several words")
