"""What one layer of a run did, and the table of all of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

HEAD = (
    "layer",
    "operation",
    "engine",
    "calls",
    "windows",
    "skipped %",
    "MACs saved %",
    "ms/call",
    "predicted ms",
    "note",
)


@dataclass
class LayerRecord:
    """What one operation of one layer did, over all its calls.

    Attributes:
        layer: Dotted name of the module that called it.
        operation: Name of the PyTorch operation.
        engine: What ran it.
        calls: Number of calls.
        windows: Windows (one output place of one group) it has, skipped ones included; 0 if it has none.
        windows_skipped: Those that were skipped; for max pooling, those that are NaN or hold remembered ties.
        macs: Multiply-adds a dense run does.
        macs_skipped: Those that were skipped.
        macs_repeated: Those of windows that repeat another one, of which only that was computed.
        densified: How often it needed a dense tensor although its input was sparse.
        seconds: Wall-clock time inside it; not meaningful on a GPU, where calls return before they are done.
        forecast: Seconds that the planner predicted, over all calls, by engine; empty where it had no choice.
        notes: Why another engine than the one asked for ran, and the like.
    """

    layer: str
    operation: str
    engine: str
    calls: int = 0
    windows: int = 0
    windows_skipped: int = 0
    macs: int = 0
    macs_skipped: int = 0
    macs_repeated: int = 0
    densified: int = 0
    seconds: float = 0.0
    forecast: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def layer_table(layers: Sequence[LayerRecord]) -> list[str]:
    """Lay records out as a table.

    Args:
        layers: The records.

    Returns:
        Its lines, headings first.
    """
    rows = [_row(layer) for layer in layers]
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    lines = [_line(HEAD, widths), _line(["-" * width for width in widths], widths)]
    return lines + [_line(row, widths) for row in rows]


def _row(layer: LayerRecord) -> list[str]:
    notes = [f"densified {layer.densified}x"] if layer.densified else []
    if layer.macs_repeated:
        notes.append(f"{percent(layer.macs_repeated, layer.macs)} % repeats")
    return [
        layer.layer or "(model)",
        layer.operation,
        layer.engine,
        str(layer.calls),
        f"{layer.windows:,}" if layer.windows else "-",
        percent(layer.windows_skipped, layer.windows),
        percent(layer.macs_skipped, layer.macs),
        f"{1e3 * layer.seconds / max(layer.calls, 1):.2f}",
        _forecast(layer),
        "; ".join([*notes, *layer.notes]),
    ]


def _forecast(layer: LayerRecord) -> str:
    ranked = sorted(layer.forecast.items(), key=lambda item: item[1])
    return " < ".join(f"{name} {1e3 * seconds / layer.calls:.2f}" for name, seconds in ranked) or "-"


def percent(part: int, whole: int) -> str:
    """Write a share.

    Args:
        part: The part.
        whole: The whole.

    Returns:
        Per cent with one digit, "-" of nothing.
    """
    return f"{100 * part / whole:.1f}" if whole else "-"


def _line(cells: list[str] | tuple[str, ...], widths: list[int]) -> str:
    texts = cells[:3]
    left = [text.ljust(width) for text, width in zip(texts, widths[:3], strict=True)]
    right = [text.rjust(width) for text, width in zip(cells[3:-1], widths[3:-1], strict=True)]
    return "  ".join([*left, *right, cells[-1]])
