"""Names of public classes: one name is one thing wherever two of them could be imported together."""

import ast
from collections import defaultdict
from pathlib import Path

import sim

SECTIONS = {"Deployment"}
"""Sections of a scenario file that what is resolved from them may share its name with."""


def test_no_two_public_classes_of_the_simulator_share_a_name() -> None:
    root = Path(sim.__file__).parent
    homes: dict[str, list[str]] = defaultdict(list)
    for file in sorted(root.rglob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(file.relative_to(root)))
    assert {name: files for name, files in homes.items() if len(files) > 1 and name not in SECTIONS} == {}
