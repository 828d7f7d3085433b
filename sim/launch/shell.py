"""Shell text -> statements: commands, comments, assignments, files, commands inside commands.

Only what people paste is read: what another command would print is not known, nor what a branch or a loop assigns, and
their commands are read as if every line ran once.
"""

import re
from collections.abc import Mapping
from typing import Final

from sim.launch.word_reader import WordReader
from sim.launch.words import CLOSES, OPENS, Script, Statement, Word, fail
from sim.scenario.errors import Place

DECLARES: Final = ("export", "local", "readonly", "declare", "typeset")
"""Words before an assignment, the first of which makes it part of the environment."""
_HEREDOC: Final = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


def read_script(text: str, name: str) -> Script:
    """The commands in `text`, called `name` in messages. Raises ScenarioError where the shell would not read it."""
    return _Reader(text, name).script()


def read_inside(word: Word, source: str, environment: Mapping[str, Word]) -> tuple[Statement, ...]:
    """The commands in a word (`bash -c "..."`) of the text `source`, whose variables `environment` sets."""
    return _Inside(word, source, environment).script().statements


class _Reader(WordReader):
    """One pass over the characters."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text, name)
        self.files: dict[str, str] = {}
        self.branches = 0
        self.statements: list[Statement] = []

    def script(self) -> Script:
        while self.at < len(self.text):
            self.statement()
        return Script(tuple(self.statements), self.files)

    def statement(self) -> None:
        """Words up to the end of the command; redirections are dropped, here-documents kept as files."""
        words: list[Word] = []
        start, target, heredoc, appends = self.at, "", None, False
        while self.at < len(self.text):
            char, rest = self.text[self.at], self.text[self.at :]
            if rest.startswith("\\\n"):
                self.at += 2
            elif char in " \t":
                self.at += 1
            elif char == "#":
                self.comment()
            elif char in "\n;|" or (char == "&" and not rest.startswith("&>")):
                self.at += len(re.match(r"[\n;]|\|\|?|&&?", rest)[0])  # type: ignore[index]
                break
            elif found := _HEREDOC.match(rest):
                heredoc, self.at = found, self.at + found.end()
            elif found := re.match(r"\d?&?>>?(&\d)?|<", rest):
                self.at += found.end()
                if found[1] is None:
                    self.skip_blanks()
                    target, appends = "".join(word.text for word in self.words()), ">>" in found[0]
            elif char in "()":
                self.at += 1
            else:
                words += self.words()
        if heredoc is not None:
            tee = next((word.text for word in words[1:] if not word.text.startswith("-")), "")
            self.heredoc(heredoc, target or tee, appends, start)
        elif words:
            self.take(words)

    def skip_blanks(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t") and self.at < len(self.text):
            self.at += 1

    def heredoc(self, found: "re.Match[str]", target: str, appends: bool, start: int) -> None:
        """The lines down to the one that ends the document, variables filled in unless its name is quoted."""
        quote, end = found[1], found[2]
        body: list[str] = []
        while self.at < len(self.text):
            newline = self.text.find("\n", self.at)
            newline = len(self.text) if newline < 0 else newline
            line = self.text[self.at : newline]
            self.at = newline + 1
            if line.strip() == end:
                text = "\n".join(body) if quote else self.variables.filled("\n".join(body))[0]
                self.files[target] = self.files.get(target, "") * appends + text + "\n"
                return
            body.append(line)
        raise fail(self.place(start), f"the document that starts here has no line `{end}` to end it")

    def take(self, words: list[Word]) -> None:
        """Keep a command; set the variables that it only assigns."""
        declares = words[0].text in DECLARES
        assigning = [word for word in words if not (declares and word.text.startswith("-"))][declares:]
        if all(word.assigns for word in assigning):
            for word in assigning:
                self.variables.assign(word, bool(self.branches), exports=words[0].text == "export")
            return
        self.branches += (words[0].text in OPENS) - (words[0].text in CLOSES)
        note, environment = "\n".join(self.notes), dict(self.variables.exported)
        self.statements.append(Statement(tuple(words), note, environment))
        self.notes = []


class _Inside(_Reader):
    """The text in a word of another one, whose places are those of that one."""

    def __init__(self, word: Word, source: str, environment: Mapping[str, Word]) -> None:
        super().__init__(word.text, word.place.file)
        self.variables.set_all(environment)
        self.word, self.outer = word, _Reader(source, word.place.file)
        lines = self.outer.lines[: (word.place.line or 1) - 1]
        self.begins = sum(len(line) + 1 for line in lines) + (word.place.column or 1) - 1

    def place(self, at: int) -> Place:
        """Where the characters from `at` to the next blank stand in the outer text: as many of them before as here."""
        characters = re.match(r"[^\s\"'\\$]*", self.text[at:])[0]  # type: ignore[index]
        found = self.begins
        for _ in range(self.text[:at].count(characters) + 1 if characters else 0):
            next_at = self.outer.text.find(characters, found + 1)
            if next_at < 0:
                return self.word.place
            found = next_at
        return self.outer.place(found)
