"""Tables as text that reads well in a terminal and in a Markdown file alike."""

from collections.abc import Mapping, Sequence


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Write rows as a Markdown table with aligned columns.

    Args:
        rows: Column name to text; all rows have the columns of the first.

    Returns:
        The table; empty without rows.
    """
    if not rows:
        return ""
    columns = list(rows[0])
    widths = {c: max(len(c), 3, *(len(row[c]) for row in rows)) for c in columns}

    def line(cells: Mapping[str, str]) -> str:
        texts = [
            cells[c].ljust(widths[c]) if i == 0 else cells[c].rjust(widths[c]) for i, c in enumerate(columns)
        ]
        return "| " + " | ".join(texts) + " |"

    rule = {c: "-" * widths[c] if i == 0 else "-" * (widths[c] - 1) + ":" for i, c in enumerate(columns)}
    return "\n".join([line({c: c for c in columns}), line(rule), *(line(row) for row in rows)])
