"""Fill the tables of README.md and docs/ from the results files they name: `python tools/readme_tables.py`.

Between `<!-- nansparse report FILE -->` and `<!-- end -->` stands the first table that the command prints,
between `<!-- nansparse report FILE: TITLE -->` and `<!-- end -->` the one of that title. tests/test_docs.py
checks that nothing else does.
"""

from __future__ import annotations

import re
from pathlib import Path

from nansparse.evaluation.results import load_results
from nansparse.evaluation.summary import tables
from nansparse.evaluation.tables import markdown

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"<!-- nansparse report (\S+?)(?:: ([^\n]+))? -->\n(.*?)<!-- end -->\n", re.DOTALL)


def filled(text: str) -> str:
    """Fill every table of a page.

    Args:
        text: The page.

    Returns:
        The page with the tables that its results files give.
    """

    def fill(block: re.Match[str]) -> str:
        shown = tables(load_results(ROOT / block[1]))
        table = next(table for table in shown if block[2] in (None, table.title))
        head = block[0].splitlines()[0]
        return "\n\n".join((head, markdown(table.lines), table.note, "<!-- end -->\n"))

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
