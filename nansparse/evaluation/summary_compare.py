"""Tables of `nansparse compare`."""

from __future__ import annotations

import statistics

from nansparse.evaluation.equivalence import FEWEST_PAIRS, NOT_ENOUGH
from nansparse.evaluation.results import Results, Row
from nansparse.evaluation.summary import Line, Table, number, share, times

# Measure, heading, digits; those that a comparison does not have are left out.
_MEASURES = (
    ("dice_truth", "Dice / truth", 4),
    ("dice", "Dice / dense", 4),
    ("hd95_mm", "HD95 mm / dense", 2),
    ("mean_distance_mm", "ASD mm / dense", 3),
    ("volume_difference_percent", "volume % / dense", 2),
    ("disagreeing_voxels", "voxels differing", 0),
    ("psnr_db", "PSNR dB / dense", 2),
    ("ssim", "SSIM / dense", 4),
    ("psnr_db_truth", "PSNR dB / truth", 2),
    ("ssim_truth", "SSIM / truth", 4),
    ("max_difference", "largest difference", 4),
    ("accuracy", "accuracy", 4),
    ("agreement", "agreement", 4),
    ("top5_agreement", "top-5 agreement", 4),
)


def comparison_tables(results: Results) -> list[Table]:
    """Summarise a comparison.

    Args:
        results: Of `nansparse compare`.

    Returns:
        Overall, equivalence, per label and per volume.
    """
    groups: dict[str, list[Row]] = {}
    for row in results.rows:
        if row.done:
            groups.setdefault(row.way, []).append(row)
    volumes = len({row.cell["volume"] for rows in groups.values() for row in rows})
    missing = [f"{row.way}: {row.fault}" for row in results.rows if row.status == "unsupported"]
    note = (
        f"Over {volumes} volume(s). Time: network and putting together, in all. Speed-up over the fastest "
        "dense run of the whole volume that computes the same. Means over volumes and labels; empty and "
        "missed labels count."
    )
    if missing:
        note += " Not run: " + "; ".join(dict.fromkeys(missing)) + "."
    overall = [_line({"run": way}, rows) for way, rows in groups.items()]
    tables = [Table("Overall", note, _even(overall)), _equivalence(results), _labels(groups)]
    if volumes > 1:
        lines = [
            _line({"volume": str(row.cell["volume"]), "run": way}, [row])
            for way, rows in groups.items()
            for row in rows
        ]
        tables.append(Table("Volumes", "", _even(lines)))
    return tables


def _line(head: Line, rows: list[Row]) -> Line:
    line = dict(head)
    line["time s"] = number(sum(row.seconds or 0.0 for row in rows), 1)
    exact = sum((row.values["speed_up"] or 0.0) * (row.seconds or 0.0) for row in rows)
    line["speed-up"] = times(exact / max(sum(row.seconds or 0.0 for row in rows), 1e-12))
    peaks = [row.values.get("peak_memory_mib") for row in rows]
    line["peak MiB"] = number(max((peak for peak in peaks if peak is not None), default=None), 0)
    for name, heading in (("windows_skipped", "windows skipped"), ("macs_skipped", "MACs skipped")):
        line[heading] = share(_mean(rows, name))
    for name, heading, digits in _MEASURES:
        if any(name in row.values for row in rows):
            line[heading] = number(_mean(rows, name), digits)
    return line


def _mean(rows: list[Row], name: str) -> float | None:
    values = [row.values.get(name) for row in rows]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _even(lines: list[Line]) -> list[Line]:
    """Give all lines the same columns."""
    columns = dict.fromkeys(column for line in lines for column in line)
    return [{column: line.get(column, "-") for column in columns} for line in lines]


def _equivalence(results: Results) -> Table:
    entries = results.analysis.get("equivalence", [])
    judged = any(entry["verdict"] != NOT_ENOUGH for entry in entries)
    lines = []
    margin, measure, most = 0.0, "", 0
    for entry in entries:
        margin, measure, most = entry["margin"], entry["measure"], max(most, entry["n"])
        if not judged and entry["label"] != entries[0]["label"]:
            continue  # nothing can be said label by label; the means over volumes stand under "Labels"
        interval = "-" if entry["low"] is None else f"[{entry['low']:+.4f}, {entry['high']:+.4f}]"
        lines.append(
            {
                "run": entry["way"],
                "label": entry["label"],
                "n": str(entry["n"]),
                "mean difference": "-" if entry["mean"] is None else f"{entry['mean']:+.4f}",
                "90 % interval": interval,
                "effect size d": number(entry["effect_size"], 2),
                "p TOST": number(entry["p_tost"]),
                "p TOST (Holm)": number(entry["p_tost_holm"]),
                "p t-test": number(entry["p_t_test"]),
                "verdict": entry["verdict"],
            }
        )
    note = (
        f"Paired over volumes, by {measure}, margin {margin:g}. TOST asks whether a difference as large as "
        "the margin can be ruled out: below 0.05 (after Holm's correction over labels) a way is equivalent. "
        "The paired t-test asks whether there is any difference, and says nothing about equivalence."
    )
    if not judged:
        note = (
            f"Paired over volumes, by {measure}, margin {margin:g}. Not enough data for any verdict: "
            f"{most} volume(s), and it takes {FEWEST_PAIRS}."
        )
    return Table("Equivalence with the dense run", note, lines)


def _labels(groups: dict[str, list[Row]]) -> Table:
    lines = []
    for way, rows in groups.items():
        for label in dict.fromkeys(label for row in rows for label in row.labels):
            held = [row.labels[label] for row in rows if label in row.labels]
            line = {"run": way, "label": label}
            for name, heading, digits in _MEASURES:
                values = [value for values in held if (value := values.get(name)) is not None]
                if values:
                    line[heading] = number(statistics.fmean(values), digits)
            lines.append(line)
    return Table("Labels", "Means over volumes.", _even(lines))
