"""Fill the tables of README.md from the results files they name: `python tools/readme_tables.py`.

Between `<!-- nansparse report FILE -->` and `<!-- end -->` stands the first table that the command prints.
tests/test_docs.py checks that nothing else does.
"""

from __future__ import annotations

import re
from pathlib import Path

from nansparse.evaluation.results import load_results
from nansparse.evaluation.summary import tables
from nansparse.evaluation.tables import markdown

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- nansparse report (\S+) -->\n(.*?)<!-- end -->\n", re.DOTALL)


def filled(text: str) -> str:
    """Fill every table of a page.

    Args:
        text: The page.

    Returns:
        The page with the tables that its results files give.
    """

    def fill(block: re.Match[str]) -> str:
        table = tables(load_results(ROOT / block[1]))[0]
        lines = (f"<!-- nansparse report {block[1]} -->", markdown(table.lines), table.note, "<!-- end -->\n")
        return "\n\n".join(lines)

    return BLOCK.sub(fill, text)


if __name__ == "__main__":
    page = ROOT / "README.md"
    page.write_text(filled(page.read_text()))
