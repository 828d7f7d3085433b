"""A file -> a checked Scenario that still knows where each of its values is written.

    read the text -> follow `extends` -> lay `--set` on top -> find its files -> check the form

Whether the deployment is possible is the second stage (`sim.deployment.plan`); its problems come back through
`LoadedScenario.located`.
"""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from sim.scenario.errors import DeploymentError, KeyPath, LocatedProblem, Place, Problem, ScenarioError
from sim.scenario.form import check, schema_at
from sim.scenario.gpu_file import is_gpu_file, read_gpu
from sim.scenario.reader import exists, read, read_file, scalar, similar_file
from sim.scenario.schema import Scenario
from sim.scenario.tree import Node, find, graft, merge, nest, plain, positions

FILE_SUFFIXES: Final = frozenset(
    [".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".npz", ".npy", ".xz", ".gz", ".yaml", ".yml"]
)
"""What tells a file from a name of the catalog, where a key takes either: this, or a `/` to something that exists."""

LONGEST_NAME: Final = 255
"""Bytes of a file's name on nearly every file system; longer ones raise instead of not being there."""


@dataclass(frozen=True)
class LoadedScenario:
    """A scenario, with the document that it came from."""

    scenario: Scenario
    tree: Node
    sources: tuple[str, ...]
    """The files that were read: the one asked for, then what it extends."""

    @property
    def data(self) -> object:
        """The document as applied: `extends` and overrides merged, defaults left out."""
        return plain(self.tree)

    @property
    def positions(self) -> dict[KeyPath, Place]:
        """Where every key is written, by key path."""
        return positions(self.tree)

    def located(self, problems: Iterable[Problem]) -> ScenarioError:
        """The same problems with file, line and column: of their key, or of the nearest section that is written."""
        return ScenarioError(
            LocatedProblem(problem.path, problem.message, find(self.tree, problem.path)[1].shown)
            for problem in problems
        )

    @contextmanager
    def locating(self) -> Iterator[None]:
        """Inside, a DeploymentError becomes the ScenarioError that shows where it is written."""
        try:
            yield
        except DeploymentError as error:
            raise self.located(error.problems) from None


def load(path: str | Path, overrides: Sequence[str] = (), piped: bool = True) -> LoadedScenario:
    """The scenario in a file, with overrides `key.path=value` on top. `piped`: it may be a pipe, as the user named it;
    for the writer of one that a file names, nobody knows how long to wait.

    Checks the form only, that of its GPU's file included. Raises ScenarioError with every problem found.
    """
    tree, sources = _document(Path(path), str(path), (), piped)
    return _finished(_overridden(tree, overrides), sources)


def parse(text: str, name: str = "scenario", overrides: Sequence[str] = ()) -> LoadedScenario:
    """The same from text, such as an editor's. Files that it names are looked for beside `name`."""
    tree, sources = _extended(read(text, name), name, ())
    return _finished(_overridden(tree, overrides), sources)


def from_data(data: Mapping[str, object], overrides: Sequence[str] = ()) -> LoadedScenario:
    """The same from plain data, such as a notebook's dictionary. Files that it names are looked for in the working
    folder."""
    name = "the dictionary"
    tree, sources = _extended(graft(dict(data), Place(name)), name, ())
    return _finished(_overridden(tree, overrides), sources)


def from_tree(tree: Node) -> LoadedScenario:
    """The same from a tree whose values know where they are written, such as a part of another file."""
    extended, sources = _extended(tree, tree.place.file, ())
    return _finished(extended, sources)


def apply(loaded: LoadedScenario, overrides: Mapping[str, object]) -> LoadedScenario:
    """The scenario with other values at dotted keys: one point of a sweep. A value may be a Node, to keep its place.

    Raises ScenarioError as `load` does.
    """
    leaves = [(key, graft(value, Place(f"override {key}"))) for key, value in overrides.items()]
    return _finished(_laid_over(loaded.tree, leaves), loaded.sources)


def to_yaml(scenario: Scenario) -> str:
    """The scenario as a file that loads to an equal one; what is default is left out."""
    data = scenario.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes every text that our reader would take for a number, a flag or null."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _quoted)


def _document(
    path: Path, name: str, above: tuple[str, ...], piped: bool = False
) -> tuple[Node, tuple[str, ...]]:
    """The file's tree and what it was read from; `above` are the files that led here through `extends`."""
    return _extended(read(read_file(path, name, piped), name), name, (*above, os.path.realpath(path)))


def _extended(tree: Node, name: str, above: tuple[str, ...]) -> tuple[Node, tuple[str, ...]]:
    """The tree on top of the scenario that it extends, if it extends one."""
    if tree.value is None:
        raise ScenarioError([LocatedProblem((), "the file is empty; expected a scenario", tree.place)])
    if not isinstance(tree.value, dict):
        raise ScenarioError(
            [LocatedProblem((), "expected a section with keys such as model, gpu", tree.place)]
        )
    own = Node({k: child for k, child in tree.value.items() if k not in Scenario.directives}, tree.place)
    extends = tree.value.get("extends")
    if extends is None or extends.value is None:
        return own, (name,)

    def refuse(message: str) -> ScenarioError:
        return ScenarioError([LocatedProblem(("extends",), message, extends.place)])

    if not isinstance(extends.value, str):
        raise refuse("expected the name of another scenario file")
    base_name = os.path.normpath(Path(name).parent / extends.value)
    if (real := os.path.realpath(base_name)) in above:
        circle = " -> ".join(Path(file).name for file in (*above[above.index(real) :], real))
        raise refuse(f"goes round in a circle: {circle}")
    try:
        base, sources = _document(Path(base_name), base_name, above)
    except ScenarioError as error:
        if any(p.file == base_name and p.line is None for p in error.problems):  # the file as a whole
            raise refuse("; ".join(f"{p.file}: {p.message}" for p in error.problems)) from None
        raise
    return merge(base, own, Scenario), (name, *sources)


def _overridden(tree: Node, overrides: Sequence[str]) -> Node:
    """The tree with `key.path=value` texts laid over it."""
    return _laid_over(tree, settings(overrides).items())


def settings(overrides: Sequence[str]) -> dict[str, Node]:
    """Texts `key.path=value`, as `--set` takes them, by key; values are read as YAML. Raises ScenarioError."""
    leaves: dict[str, Node] = {}
    problems: list[LocatedProblem] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        key = key.strip()
        place = Place(f"--set {key}")
        if not (equals and all(key.split("."))):
            problems.append(LocatedProblem((), "expected key.path=value", Place(f"--set {text}")))
        elif key in leaves:
            problems.append(LocatedProblem((), "set twice", place))
        else:
            try:
                leaves[key] = graft(plain(read(value, place.file)), place)
            except ScenarioError as error:
                problems += error.problems
    if problems:
        raise ScenarioError(problems)
    return leaves


def _laid_over(tree: Node, leaves: Iterable[tuple[str, Node]]) -> Node:
    """One merge for all leaves, so that they displace what is in the tree but not each other."""
    over = Node({}, tree.place)
    for key, leaf in leaves:
        over = merge(over, nest(tuple(key.split(".")), leaf), None)
    return merge(tree, over, Scenario)


def _finished(tree: Node, sources: tuple[str, ...]) -> LoadedScenario:
    """The tree checked, its file names made absolute."""
    problems: list[LocatedProblem] = []
    found = _with_files(tree, (), problems)
    scenario = check(found, Scenario, problems)
    if is_gpu_file(scenario.gpu):
        read_gpu(scenario.gpu)  # its mistakes have places of their own
    return LoadedScenario(scenario, found, sources)


def _with_files(node: Node, path: KeyPath, problems: list[LocatedProblem]) -> Node:
    """The tree with the name of each file it uses made absolute, from the folder of the text that names it.

    A file that does not exist joins `problems`.
    """
    if isinstance(node.value, dict):
        children = {key: _with_files(child, (*path, key), problems) for key, child in node.value.items()}
        return Node(children, node.place, node.key)
    if not (isinstance(node.value, str) and schema_at(Scenario, path).get("file")):
        return node
    if any(len(part.encode()) > LONGEST_NAME for part in Path(node.value).parts):
        problems.append(LocatedProblem(path, "no file, nor anything else, has so long a name", node.place))
        return node
    # An override is typed in the working folder.
    folder = Path(node.place.file).parent if node.place.line else Path()
    file = Path(os.path.realpath(folder / node.value))
    named = file.suffix in FILE_SUFFIXES
    if not (named or ("/" in node.value and exists(file))):
        return node
    if not exists(file):
        problems.append(LocatedProblem(path, f"no such file: {node.value}{similar_file(file)}", node.place))
    return Node(str(file), node.place, node.key)
