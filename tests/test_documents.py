"""The documents hold together: links lead somewhere, tables have rows, and files that are named are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CASES = ROOT / "VALIDATION.md"
PAGES = [ROOT / "README.md", CASES, *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = ("sim", "calibrate", "dashboard", "tests", "scenarios", "docs")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them: lower case, no punctuation, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_page
def test_every_link_leads_to_a_file_and_its_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    lost = []
    for name, anchor in links:
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            lost.append((name, anchor))
    assert lost == []


@every_page
def test_no_table_has_lost_its_rows(page: Path) -> None:
    lines = [*page.read_text(encoding="utf-8").splitlines(), ""]
    heads = [i for i, line in enumerate(lines) if re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", line)]
    empty = [i + 1 for i in heads if not lines[i + 1].startswith("|")]
    assert [line for line in empty if "![" not in lines[line - 2]] == []  # a head of pictures is a table


@pytest.mark.parametrize("page", [page for page in PAGES if page != CASES], ids=lambda page: page.name)
def test_files_of_the_repository_that_are_named_are_there(page: Path) -> None:
    """Not in the list of cases, which names sources of others."""
    form = rf"(?<![\w/.-])(?:{'|'.join(ROOMS)})/[\w./-]+\.(?:py|md|ya?ml|csv|json)\b"
    named = re.findall(form, page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_rooms_of_architecture_hold_the_files_that_it_names() -> None:
    """There a file is named by its room: `cost/fits.py` is `sim/cost/fits.py`."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = re.findall(r"`([\w/]+/[\w]+\.py)`", text)
    assert len(named) > 20
    assert [name for name in named if not any((ROOT / at / name).exists() for at in ("", "sim"))] == []
