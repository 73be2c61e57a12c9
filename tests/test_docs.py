"""The documents tell the truth: their code runs, and their links, names and equations lead somewhere."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "adapters" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKING = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
SOURCES = sorted([*(ROOT / "nansparse").rglob("*.py"), *(ROOT / "adapters").glob("*.py")])

FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```[ ]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
DOTTED = re.compile(r"`(nansparse(?:\.\w+)+)[`(]")
DEFINITION = re.compile(r"^ *\((\d)\)  (.+?)(?: {2,}.*)?$", re.MULTILINE)
REFERENCE = re.compile(r"[Ee]quations? (\d(?:(?:, | and | to )\d)*)")
NOT_MODULES = {"nansparse.engines"}  # the entry-point group
PICTURE_BYTES = 200_000

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def blocks(text: str, language: str) -> list[str]:
    """Find the code blocks of one language."""
    return [body for kind, body in FENCE.findall(text) if kind == language]


def prose(text: str) -> str:
    """Leave the code blocks out."""
    return FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """Name the headings as GitHub does."""
    titles = HEADING.findall(prose(text))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken_links(page: Path) -> list[str]:
    """List the relative links of a page that lead nowhere."""
    broken = []
    for target in LINK.findall(prose(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            broken.append(target)
    return broken


def unknown_names(text: str) -> list[str]:
    """List the dotted names in backticks that are neither modules nor their attributes."""
    return sorted(name for name in set(DOTTED.findall(prose(text))) - NOT_MODULES if not exists(name))


def exists(name: str) -> bool:
    """Say whether a dotted name can be reached by imports and attributes."""
    found = importlib.import_module("nansparse")
    path = "nansparse"
    for part in name.split(".")[1:]:
        path += f".{part}"
        try:
            found = getattr(found, part, None) or importlib.import_module(path)
        except ModuleNotFoundError:
            return False
    return True


def definitions(files: list[Path]) -> dict[str, list[str]]:
    """Collect the first line of each numbered equation, spaces collapsed."""
    found: dict[str, list[str]] = {}
    for file in files:
        text = file.read_text()
        for body in blocks(text, "text") if file.suffix == ".md" else [text]:
            for number, line in DEFINITION.findall(body):
                found.setdefault(number, []).append(" ".join(line.split()))
    return found


def referenced(text: str) -> set[str]:
    """Collect the equation numbers that a text refers to."""
    return {digit for numbers in REFERENCE.findall(text) for digit in re.findall(r"\d", numbers)}


@pages
def test_python_blocks_run(page: Path) -> None:
    namespace: dict[str, object] = {"__name__": "documentation"}
    for body in blocks(page.read_text(), "python"):
        exec(compile(body, str(page.relative_to(ROOT)), "exec"), namespace)


def test_the_pages_hold_code() -> None:
    counts = {page.name: len(blocks(page.read_text(), "python")) for page in PAGES}
    assert [name for name, count in counts.items() if not count] == ["index.md"]


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_pictures_exist(page: Path) -> None:
    assert broken_links(page) == []


@pages
def test_names_exist(page: Path) -> None:
    assert unknown_names(page.read_text()) == []


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    assert set(LINK.findall(index)) >= {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_equations_are_defined_once_and_as_in_the_code() -> None:
    code, documents = definitions(SOURCES), definitions(PAGES)
    assert {number: len(lines) for number, lines in documents.items()} == dict.fromkeys("1234", 1)
    starts = {number: line.split(" (")[0] for number, (line,) in documents.items()}
    assert {n: [line.split(" (")[0] for line in lines] for n, lines in code.items()} == {
        number: [start] for number, start in starts.items()
    }


@pytest.mark.parametrize("file", [*PAGES, *SOURCES], ids=lambda file: str(file.relative_to(ROOT)))
def test_equations_referred_to_exist(file: Path) -> None:
    assert referenced(file.read_text()) <= set("1234")


def test_schematics_can_be_drawn_anew_and_are_small(tmp_path: Path) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "figures" / "draw_schematics.py"))
    for name in ("pooling", "convolution"):
        script[f"draw_{name}"](tmp_path / f"{name}.png")
        for folder in (tmp_path, ROOT / "docs" / "figures"):
            assert 10_000 < (folder / f"{name}.png").stat().st_size < PICTURE_BYTES


def test_faults_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One thing\n[a](no.md) [b](#one-thing) [c](#two) ![d](no.png) `nansparse.nothing.at_all`\n"
    )
    assert broken_links(page) == ["no.md", "#two", "no.png"]
    assert unknown_names(page.read_text()) == ["nansparse.nothing.at_all"]
    assert referenced("Equation 7, equations 1 and 2, equations 3, 4 and 5") == set("712345")


@pytest.mark.parametrize("page", ["README.md", "docs/benchmarks.md"])
def test_tables_are_those_of_their_results_files(page: str) -> None:
    script = runpy.run_path(str(ROOT / "tools" / "readme_tables.py"))
    text = (ROOT / page).read_text()
    files = [name for name, *_ in script["BLOCK"].findall(text)]
    assert files
    assert ROOT / page in script["PAGES"]
    assert script["filled"](text) == text
    commands = [script["load_results"](ROOT / name).command for name in files]
    assert [command for command in commands if command not in text] == []
    assert (
        script["filled"](re.sub(r"\d\.\d\dx \|", "9.99x |", text))
        == text
        != re.sub(r"\d\.\d\dx \|", "", text)
    )
