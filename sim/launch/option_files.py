"""Files that a launch command names: an engine's flags as YAML, TensorRT-LLM's options, its list of servers."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from posixpath import normpath
from typing import Final

from sim.launch.arguments import EXPECTED, Arguments, Given, Told, read_arguments
from sim.launch.table import Flag, FlagTable
from sim.launch.words import Word, fail
from sim.scenario.errors import Place, ScenarioError
from sim.scenario.reader import read, read_file
from sim.scenario.tree import Node, plain


class Files:
    """The files of a text: those that it writes (`cat > FILE <<EOF`), and those beside it, in `folder` (None: none)."""

    def __init__(self, written: Mapping[str, str], folder: Path | None) -> None:
        self._written = {normpath(name): text for name, text in written.items()}
        self._folder = folder

    def read(self, name: str, place: Place) -> dict[str, Node]:
        """The keys of a YAML file. Raises ScenarioError at `place` where there is no such file, and in the file where
        it holds no keys."""
        return keys_in(self._text(name, place), name)

    def _text(self, name: str, place: Place) -> str:
        if (text := self._written.get(normpath(name))) is not None:
            return text
        write = f"write it in the text (cat > {name} <<EOF)"
        if self._folder is None:
            raise fail(place, f"{name}: no file is read here; {write}")
        try:
            return read_file(self._folder / name, name)
        except ScenarioError as error:
            message = error.problems[0].message
            raise fail(place, f"{name}: {message}; put it there, or {write}") from None


def keys_in(text: str, name: str) -> dict[str, Node]:
    """The keys of YAML or JSON. Raises ScenarioError where it holds anything else."""
    root = read(text, name)
    if root.value is None:
        return {}
    if not isinstance(root.value, dict):
        raise fail(root.place, "expected keys and values, as the engine's options")
    return root.value


def read_options(known: FlagTable, keys: Mapping[str, Node], name: str) -> Arguments:
    """What the keys of an engine's file, called `name`, say."""
    if known.engine == "trtllm":
        found = Arguments()
        _keys(keys, "", known, name, found)
        return found
    return read_arguments(list(_as_words(keys)), known)


def _as_words(keys: Mapping[str, Node]) -> Iterator[Word]:
    """A file of flags as the words that it stands for."""
    for key, node in keys.items():
        value = plain(node)
        flag = "--" + key.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            yield Word(flag if value else "--no-" + flag.removeprefix("--"), node.shown)
            continue
        yield Word(flag, node.shown)
        if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            yield from (Word(str(item), node.shown) for item in value)
        else:
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            yield Word(text, node.shown, quoted=True)


def _keys(keys: Mapping[str, Node], above: str, known: FlagTable, file: str, found: Arguments) -> None:
    """The keys of TensorRT-LLM's file, sections by dots."""
    for key, node in keys.items():
        path = f"{above}{key}"
        flag = known.flags.get(path)
        section = isinstance(node.value, dict)
        names_section = any(name.startswith(f"{path}.") for name in known.flags)
        inside = section and names_section
        if flag is not None:
            value = plain(node)
            if flag.fate == "setting":
                _check_kind(flag, value, path, node.shown)
            if value is not None or flag.takes == "json":
                found.keep(flag, Given(value, _said(path, node, file), node.shown))
        if inside:
            assert isinstance(node.value, dict)
            _keys(node.value, f"{path}.", known, file, found)
        elif flag is None and not (node.value is None and names_section):
            why = f"no key that is known of {known.engine} {known.release}{known.nearest(path)}"
            found.not_modelled.append(Told(_said(path, node, file), why, node.shown))


def _said(path: str, node: Node, file: str) -> str:
    value = plain(node)
    shown = json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)
    return f"{path}: {shown if len(shown) <= 40 else shown[:40] + '...'} ({Path(file).name})"


KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "count": (int,),
    "int": (int,),
    "number": (int, float),
    "switch": (bool,),
    "text": (str,),
    "json": (dict, str),
}


def _check_kind(flag: Flag, value: object, path: str, place: Place) -> None:
    kinds = KINDS[flag.takes]
    fits = isinstance(value, kinds) and (flag.takes == "switch" or not isinstance(value, bool))
    if flag.takes == "count":
        fits = fits and isinstance(value, int) and value >= 1
    if value is not None and not fits:
        raise fail(place, f"{path} takes {EXPECTED[flag.takes]}, got {value!r}")
