"""The table of `nansparse demo`."""

from __future__ import annotations

from nansparse.evaluation.results import Results
from nansparse.evaluation.summary import Line, Table, number, share, times

# Measure of a tissue, and what it is against in the heading.
_OVERLAPS = (("dice_truth", "maps"), ("dice", "dense"))


def demo_tables(results: Results) -> list[Table]:
    """Summarise the demonstration.

    Args:
        results: Of `nansparse demo`.

    Returns:
        One line a way.
    """
    lines = []
    for row in results.rows:
        line: Line = {"run": row.way, "seconds": number(row.seconds, 1)}
        line["speed-up"] = times(row.values.get("speed_up"))
        line["windows skipped"] = share(row.values.get("windows_skipped"))
        line["MACs skipped"] = share(row.values.get("macs_skipped"))
        for name, against in _OVERLAPS:
            held = {tissue: values[name] for tissue, values in row.labels.items() if name in values}
            line |= {f"{tissue} / {against}": number(value) for tissue, value in held.items()}
        lines.append(line)
    sizes: dict[float | None, list[str]] = {}
    for row in results.rows:
        sizes.setdefault(row.values.get("batch_size"), []).append(row.way)
    called = "; ".join(f"{number(size, 0)} ({', '.join(ways)})" for size, ways in sizes.items())
    environment, settings = results.environment, results.settings
    note = (
        f"{settings['slices']} slices, {environment['threads']} thread(s), {environment['processor']}, torch "
        f"{environment['torch']}. Speed-up: over the faster of the two dense runs on the whole volume "
        f"({settings['best_dense']}). Tissue / maps: Dice against the labels made from the template's tissue "
        "maps; tissue / dense: against the labels of the dense run. "
        f"Slices a call: {called}."
    )
    return [Table("Demonstration", note, lines)]
