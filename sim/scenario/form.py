"""The first stage of the check: is the document a scenario at all? Says in plain sentences what is not.

The sentences come from the schema itself (its JSON schema: types, bounds, descriptions), so a new key explains
itself without a line here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sim.scenario.errors import (
    MOST_TOLD,
    KeyPath,
    LocatedProblem,
    ScenarioError,
    and_more,
    did_you_mean,
    dotted,
)
from sim.scenario.section import Section
from sim.scenario.tree import Node, find, plain

Form = TypeVar("Form", bound=Section)
Schema = Mapping[str, Any]

_SHOWN_CHARACTERS: Final = 40
"""Characters of a wrong value that a message repeats."""


def check(tree: Node, form: type[Form], known: Iterable[LocatedProblem] = ()) -> Form:
    """The document as a `form`, such as a Scenario.

    Raises ScenarioError with every problem, placed; those already `known` are among them.
    """
    found: list[ErrorDetails] = []
    try:
        checked = form.model_validate(plain(tree))
    except ValidationError as error:
        found = error.errors(include_url=False)
    more, found = len(found) - MOST_TOLD, found[:MOST_TOLD]
    problems = [_located(tree, form, error) for error in found]
    # A misspelt key is one mistake: the key that it was meant to be is not missing as well.
    typos = {_meant(form, error["loc"]) for error in found if error["type"] == "extra_forbidden"}
    kept = [
        p
        for p, error in zip(problems, found, strict=True)
        if error["type"] != "missing" or p.path not in typos
    ]
    # A file of another kind has one mistake, whatever else it lacks.
    kept = [p for p in kept if len(p.path) == 1 and p.path[0] in form.foreign][:1] or kept
    if kept := [*known, *kept]:
        kept.sort(key=lambda p: (p.file, p.line or 0, p.column or 0))
        if more > 0:
            kept.append(and_more(more, tree.place.file))
        raise ScenarioError(kept)
    return checked


def _located(tree: Node, form: type[Section], error: ErrorDetails) -> LocatedProblem:
    path, kind = error["loc"], error["type"]
    written, node = find(tree, path)
    schema = schema_at(form, path)
    if kind == "extra_forbidden":
        return LocatedProblem(path, _unknown_key(form, path), node.key or node.place)
    if kind == "value_error":
        return LocatedProblem(path, str(error["ctx"]["error"]), node.shown)
    if kind == "missing" and isinstance(path[-1], str):
        return LocatedProblem(path, f"this key is required and missing ({schema['description']})", node.shown)
    if kind == "missing":  # an item of a list: the list is at fault
        path, schema = written, schema_at(form, written)
    value = plain(node)
    hint = did_you_mean(value, schema.get("enum", ())) if isinstance(value, str) else ""
    return LocatedProblem(path, f"expected {expected(schema)}, got {_got(value)}{hint}", node.shown)


def _unknown_key(form: type[Section], path: KeyPath) -> str:
    if len(path) == 1 and (says := form.foreign.get(str(path[0]))):
        return says
    if meant := _meant(form, path):
        return f"unknown key; did you mean '{meant[-1]}'?"
    elsewhere = [dotted(p) for p in key_paths(form) if p[-1] == path[-1]]
    if 0 < len(elsewhere) <= 3:
        return f"unknown key here; did you mean {' or '.join(elsewhere)}?"
    keys = ", ".join(schema_at(form, path[:-1]).get("properties", ())) or "none"
    return f"unknown key; expected one of: {keys}"


def _meant(form: type[Section], path: KeyPath) -> KeyPath | None:
    """The path of the known key whose name is nearest, in the same section."""
    directives = form.directives if len(path) == 1 else ()
    keys = (*schema_at(form, path[:-1]).get("properties", ()), *directives)
    hint = did_you_mean(str(path[-1]), keys)
    return next(((*path[:-1], key) for key in keys if f"'{key}'" in hint), None)


def expected(schema: Schema) -> str:
    """What a value should be, as a noun: `a number above 0`."""
    noun = "text"
    match schema:
        case {"enum": names}:
            noun = f"one of {', '.join(names)}"
        case {"type": "integer"}:
            noun = f"a whole number{_bounds(schema)}{_unit(schema)}"
        case {"type": "number"}:
            noun = f"a number{_bounds(schema)}{_unit(schema)}"
        case {"type": "boolean"}:
            noun = "true or false"
        case {"type": "array", "prefixItems": items}:
            noun = f"a list of {len(items)} items, each {expected(items[0])}"
        case {"type": "array", "items": {}} if not schema["items"]:
            noun = "a list of values"
        case {"type": "array", "items": item, "maxItems": most}:
            noun = f"a list of 1 to {most} items, each {expected(item)}"
        case {"type": "array", "items": item}:
            noun = f"a list of at least one item, each {expected(item)}"
        case {"type": "object", "properties": keys} if keys:
            noun = f"a section with keys such as {', '.join(list(keys)[:4])}"
        case {"type": "object"}:
            noun = "an empty section, written {}"
        case {"file": True}:
            noun = "a name or a file"
        case {"release": True}:
            noun = 'a release in quotes, such as "0.5.9"'
    return noun


def _bounds(schema: Schema) -> str:
    match schema:
        case {"minimum": low, "maximum": high}:
            return f" from {_short(low)} to {_short(high)}"
        case {"minimum": low, "exclusiveMaximum": high}:
            return f" from {low:g} to below {high:g}"
        case {"exclusiveMinimum": low, "maximum": high}:
            return f" above {_short(low)} to {_short(high)}"
        case {"exclusiveMinimum": low}:
            return f" above {low:g}"
        case {"minimum": low}:
            return f", {low:g} or more"
    return ""


def _unit(schema: Schema) -> str:
    return f" {schema['unit']}" if "unit" in schema else ""


def _short(number: float) -> str:
    """`1e9`, not `1e+09`."""
    return re.sub(r"e([-+])0*", lambda sign: "e" + sign[1].strip("+"), f"{number:g}")


def _got(value: object) -> str:
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a section"
        case list():
            return f"a list of {len(value)}"
        case str():
            shown = value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "..."
            return f"the text '{shown}'"
    return f"{value:g}" if isinstance(value, int | float) and abs(value) >= 1e9 else str(value)


@cache
def _json_schema(form: type[Section]) -> Schema:
    return form.model_json_schema()


def schema_at(form: type[Section], path: KeyPath) -> Schema:
    """The JSON schema of the key at `path`, references resolved; empty where the form has no such key."""
    root = _json_schema(form)
    node: Schema = root
    for part in path:
        if isinstance(part, int):
            items = node.get("prefixItems", ())
            node = items[part] if part < len(items) else node.get("items", {})
        else:
            others = node.get("additionalProperties")
            node = node.get("properties", {}).get(part, others if isinstance(others, dict) else {})
        node = _resolved(node, root)
    return node


def _resolved(node: Schema, root: Schema) -> Schema:
    """The node with its reference, or that of its items, followed and `null` left out; its own description wins."""
    kinds = [kind for kind in node.get("anyOf", ()) if kind.get("type") != "null"]
    target = kinds[0] if kinds else node
    if "$ref" in target:
        target = root["$defs"][target["$ref"].rsplit("/", 1)[-1]]
    if isinstance(items := target.get("items"), dict):
        target = {**target, "items": _resolved(items, root)}
    return {**target, **{key: node[key] for key in ("description", "default", "unit") if key in node}}


def key_paths(form: type[Section], under: KeyPath = ()) -> Iterator[KeyPath]:
    """Every key that the form knows, sections first."""
    for key in schema_at(form, under).get("properties", ()):
        yield (*under, key)
        yield from key_paths(form, (*under, key))
