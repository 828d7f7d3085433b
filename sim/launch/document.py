"""Keys with their reasons -> a scenario: plain data, and YAML in which every key says where it comes from."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from sim.launch.arguments import Told
from sim.scenario.errors import KeyPath
from sim.scenario.reader import scalar

COMMENT_COLUMN: Final = 40
WIDTH: Final = 160

Reasons = Mapping[KeyPath, tuple[Any, str]]
"""Value and reason by path, in the order of the file; sections are dicts only where they are values themselves."""


def nested(keys: Reasons) -> dict[str, Any]:
    """The keys as plain data."""
    data: dict[str, Any] = {}
    for path, (value, _) in keys.items():
        section = data
        for part in path[:-1]:
            section = section.setdefault(str(part), {})
        section[str(path[-1])] = value
    return data


def to_text(head: Sequence[str], keys: Reasons, not_modelled: Sequence[Told]) -> str:
    """The keys as YAML, each with its reason as a comment, and what is not modelled at the end."""
    lines = [f"# {line}" for line in head]
    written: KeyPath = ()
    for path, (value, why) in keys.items():
        for depth in range(len(path) - 1):
            if path[: depth + 1] != written[: depth + 1]:
                lines.append(f"{'  ' * depth}{path[depth]}:")
                written = path[: depth + 1]
        indent = "  " * (len(path) - 1)
        lines.append(_with_comment(f"{indent}{path[-1]}: {_inline(value)}", why))
        written = path
    if not_modelled:
        lines.append("# Not modelled:")
        lines += [f"#   {_one_line(told.flag)}: {_one_line(told.why)}" for told in not_modelled]
    return "\n".join(lines) + "\n"


def _with_comment(line: str, why: str) -> str:
    return f"{line:<{COMMENT_COLUMN}}  # {_one_line(why)}" if why else line


def _one_line(text: str) -> str:
    whole = "".join(c if c.isprintable() else " " for c in text)
    return whole if len(whole) <= WIDTH else whole[:WIDTH] + "..."


def _inline(value: Any) -> str:
    """A value on one line, text quoted where the reader would take it for something else."""
    if isinstance(value, str):
        return value if scalar(value) == value and _plain(value) else "'" + value.replace("'", "''") + "'"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(item)}" for key, item in value.items()) + "}"
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")


def _plain(text: str) -> bool:
    """Whether a text needs no quotes in YAML."""
    return (
        text.replace("-", "").replace("_", "").replace(".", "").replace("/", "").isalnum() and text[0] != "-"
    )


def dotted_reasons(keys: Reasons) -> Iterator[tuple[str, str]]:
    """Reasons by dotted key."""
    for path, (_, why) in keys.items():
        yield ".".join(map(str, path)), why
