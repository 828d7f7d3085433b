"""The words after a launch command's name -> settings of the engine, and what else was said."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, isfinite
from typing import Any, Final

from sim.launch.table import Flag, FlagTable, spelled
from sim.launch.words import Word, fail
from sim.scenario.errors import Place

SUFFIXES: Final = {"k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
"""Of whole numbers, as vLLM reads them."""
EXPECTED: Final = {
    "count": "a whole number from 1",
    "int": "a whole number",
    "number": "a number",
    "switch": "true or false",
    "text": "text",
    "json": "an object, {...}",
}
"""What a flag takes, in words."""
_NUMBER: Final = re.compile(r"-?\d")


@dataclass(frozen=True, slots=True)
class Given:
    """What a command says of one setting."""

    value: Any
    said: str
    """The flag as it was typed, its value with it."""
    place: Place


@dataclass(frozen=True, slots=True)
class Told:
    """A flag that sets nothing in a scenario, and why."""

    flag: str
    why: str
    unknown: Place | None = field(default=None, compare=False)
    """Where it stands, if nobody knows the flag."""


@dataclass
class Arguments:
    """What the words of one command say."""

    settings: dict[str, Given] = field(default_factory=dict)
    positional: list[Word] = field(default_factory=list)
    not_modelled: list[Told] = field(default_factory=list)
    ignored: list[Told] = field(default_factory=list)

    def keep(self, flag: Flag, given: Given) -> None:
        """Put what a flag says where it belongs."""
        if flag.fate == "setting":
            self.settings[flag.why] = given
        elif flag.fate == "ignored":
            self.ignored.append(Told(given.said, flag.why))
        elif flag.says_nothing(given.value):
            self.ignored.append(Told(given.said, "as it is without the flag"))
        else:
            self.not_modelled.append(Told(given.said, flag.why))


def read_arguments(words: Sequence[Word], table: FlagTable) -> Arguments:
    """The arguments in `words`.

    Raises ScenarioError where a flag lacks its value, has one of another kind, abbreviates several, or holds a
    variable that nobody set and that matters.
    """
    found, waiting = Arguments(), list(words)
    nested: dict[str, tuple[dict[str, Any], Word]] = {}
    while waiting:
        word = waiting.pop(0)
        if not _is_flag(word):
            found.positional.append(known(word))
            continue
        name, equals, attached = word.text.partition("=")
        name, dot, path = name.partition(".")
        value = [Word(attached, word.place, word.unknown)] if equals else []
        if dot:
            value = value or [_next(waiting, word)]
            _nest(nested.setdefault(name, ({}, word))[0], path.split("."), value[0].text)
            continue
        flag, switched = _flag(name, word, table)
        if flag is None:
            value = value or list(_plain(waiting))
            said = " ".join([name, *(v.text for v in value)])
            why = f"no flag that is known of {table.engine} {table.release}{table.nearest(name)}"
            found.not_modelled.append(Told(said, why, word.place))
            continue
        if flag.fate == "setting" and flag.takes == "switch":
            known(word)
        found.keep(flag, _given(flag, name, word, value, waiting, switched))
    for name, (data, word) in nested.items():
        flag, _ = _flag(name, word, table)
        said = f"{name} {json.dumps(data)}"
        if flag is None:
            why = f"no flag that is known of {table.engine} {table.release}{table.nearest(name)}"
            found.not_modelled.append(Told(said, why, word.place))
            continue
        before = found.settings.get(flag.why)
        merged = {**before.value, **data} if before and isinstance(before.value, dict) else data
        found.keep(flag, Given(merged, said, word.place))
    return found


def known(word: Word) -> Word:
    """The word, whose variables are all set. Raises ScenarioError naming the first that is not."""
    if word.unknown:
        name = word.unknown[0]
        says = "is not known here: nothing in this text sets it, or only a branch does; write its value"
        raise fail(word.place, f"${name} {says}")
    return word


def _is_flag(word: Word) -> bool:
    return word.text.startswith("-") and len(word.text) > 1 and not _NUMBER.match(word.text)


def _flag(name: str, word: Word, table: FlagTable) -> tuple[Flag | None, bool]:
    """The flag of that spelling, and whether it is switched on (False for `--no-x`). None: nobody knows it."""
    if re.fullmatch(r"-O\d?", name):
        return table.flags.get("--optimization-level"), True
    exact = table.find(name)
    if not exact and (plain := spelled(name)).startswith("--no-"):
        negated = table.find("--" + plain.removeprefix("--no-"))
        if len(negated) == 1 and negated[0].takes == "switch":
            return negated[0], False
    if len({(flag.fate, flag.why) if flag.fate == "setting" else flag.name for flag in exact}) > 1:
        names = ", ".join(sorted(flag.name for flag in exact)[:6])
        raise fail(word.place, f"{name} may be any of {names}; write the one that is meant in full")
    return (exact[0], True) if exact else (None, True)


def _given(
    flag: Flag, name: str, word: Word, attached: list[Word], waiting: list[Word], switched: bool
) -> Given:
    """What one flag says, its value taken from the words that wait."""
    if flag.takes == "switch":
        if not attached and waiting and waiting[0].text.lower() in ("true", "false"):
            attached = [waiting.pop(0)]
        value = switched if not attached else (attached[0].text.lower() == "true") == switched
        return Given(value, " ".join([name, *(v.text for v in attached)]), word.place)
    if flag.takes == "words":
        attached = attached or list(_plain(waiting))
        return Given([v.text for v in attached], " ".join([name, *(v.text for v in attached)]), word.place)
    inside = re.fullmatch(r"-O(\d)", name)
    [value_word] = attached or [Word(inside[1], word.place) if inside else _next(waiting, word)]
    text = value_word.text
    said = name if inside else f"{name} {text}"
    if flag.fate != "setting" or flag.why in IDENTITIES:
        return Given(text, said, word.place)
    if flag.why in SPARE and value_word.unknown:
        return Given(None, said, word.place)
    return Given(_value(flag.takes, known(value_word), name), said, word.place)


IDENTITIES: Final = frozenset(
    {"node_rank", "dist_init_addr", "master", "dp_address", "dp_rank", "dp_start", "port", "served", "config"}
)
"""Settings that only tell commands, models and files apart: a variable in them need not be set."""
SPARE: Final = frozenset({"nnodes", "dp_local", "context"})
"""Settings that only bound what the others say: where a variable in them is not set, they have no value."""


def _value(takes: str, word: Word, name: str) -> Any:
    """A value of the kind that a flag takes."""
    text = word.text
    if takes in ("int", "count"):
        found = re.fullmatch(r"(-?\d{1,12})([kmgKMG]?)", text)
        number = int(found[1]) * SUFFIXES.get(found[2], 1) if found else None
        if number is None or (takes == "count" and number < 1):
            raise fail(word.place, f"{name} takes {EXPECTED[takes]}, got '{text}'")
        return number
    if takes == "number":
        try:
            real = float(text)
        except ValueError:
            real = inf
        if not isfinite(real):
            raise fail(word.place, f"{name} takes {EXPECTED[takes]}, got '{text}'")
        return real
    if takes == "json":
        return as_json(text, word.place, name)
    return text


def as_json(text: str, place: Place, name: str) -> dict[str, Any]:
    """A JSON object in a word. Raises ScenarioError with what is wrong and where in the value."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise fail(
            place, f"{name} takes JSON: {error.msg} at character {error.pos + 1} of '{text[:60]}'"
        ) from None
    if not isinstance(value, dict):
        raise fail(place, f"{name} takes {EXPECTED['json']}, got '{text[:60]}'")
    return value


def _next(waiting: list[Word], word: Word) -> Word:
    """The value that follows a flag."""
    if not waiting or (_is_flag(waiting[0]) and not waiting[0].quoted):
        raise fail(word.place, f"{word.text} needs a value after it")
    return waiting.pop(0)


def _plain(waiting: list[Word]) -> Iterator[Word]:
    """Words up to the next flag."""
    while waiting and not _is_flag(waiting[0]):
        yield waiting.pop(0)


def _nest(data: dict[str, Any], path: Sequence[str], text: str) -> None:
    """`--flag.a.b 3` into `{a: {b: 3}}`; `c+` makes a list."""
    *sections, last = path
    for section in sections:
        data = data.setdefault(section, {})
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        value = text
    data[last.removesuffix("+")] = text.split(",") if last.endswith("+") else value


def read_environment(words: Mapping[str, Word], table: FlagTable) -> Arguments:
    """What environment variables of a command say; those that are not the engine's are ignored."""
    found = Arguments()
    for name, word in words.items():
        said = f"{name}={word.text}"
        flag = table.variables.get(name)
        if flag is not None:
            found.keep(
                flag, Given(known(word).text if flag.fate == "setting" else word.text, said, word.place)
            )
        elif name.startswith(table.prefixes):
            why = f"no variable that is known of {table.engine} {table.release}"
            found.not_modelled.append(Told(said, why))
        else:
            found.ignored.append(Told(said, "a variable of the shell, of NCCL or of the machine"))
    return found
