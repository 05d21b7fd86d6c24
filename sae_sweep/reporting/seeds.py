"""Members that differ in their seed alone, as one: their means, and how far seeds are apart."""

from collections.abc import Iterable, Sequence
from statistics import mean, stdev
from typing import Any

from sae_sweep.config.values import finite
from sae_sweep.evaluation.metrics import METRICS, Metric
from sae_sweep.reporting.points import FACTS, Point


def seed_groups(points: Iterable[Point]) -> list[list[Point]]:
    """Points of one cell that share their `twin`, in order of appearance; one alone is a group of its own."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.get("twin") or point["member"], []).append(point)
    return list(groups.values())


def seed_means(points: Iterable[Point]) -> list[dict[str, Any]]:
    """What pareto.json says of each group of at least two.

    members       labels
    architecture, variant, width, knob, knob_value, lr       as every one has them
    means, deviations       by metric: the mean, and the standard deviation over seeds (n - 1); null where some has none
    """
    return [_told(group) for group in seed_groups(points) if len(group) > 1]


def averaged(points: Iterable[Point], y: str) -> list[Point]:
    """Each group as one point of a curve: mean `l0` and mean `y`, its first member's label, and `of`, its points.

    Those without a finite L0 or y take no part.
    """
    known = [point for point in points if finite(point["l0"]) is not None and finite(point[y]) is not None]
    return [
        {
            "member": group[0]["member"],
            "l0": mean(point["l0"] for point in group),
            y: mean(point[y] for point in group),
            "trimmed": any(point.get("trimmed") for point in group),
            "of": group,
        }
        for group in seed_groups(known)
    ]


def seed_error(points: Sequence[Point], metric: str) -> float:
    """The standard error over seeds of a group's mean; 0 of one member, of which nothing says it."""
    return stdev(point[metric] for point in points) / len(points) ** 0.5 if len(points) > 1 else 0.0


def seed_table(told: Sequence[dict[str, Any]], metrics: Sequence[Metric]) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of what `seed_means` says, for a terminal."""
    rows = []
    for group in told:
        entries = [_entry(metric, group) for metric in metrics]
        rows.append([_name(group["members"]), str(len(group["members"])), *entries, ""])
    return ["mean ± deviation over seeds", "n", *(metric.title for metric in metrics), ""], rows


def _name(labels: Sequence[str]) -> str:
    """What labels have in common, which is all but the seed where the seed is in them."""
    words = [label.split("-") for label in labels]
    return "-".join(word for index, word in enumerate(words[0]) if all(word in own[index : index + 1] for own in words))


def _entry(metric: Metric, group: dict[str, Any]) -> str:
    value, spread = group["means"][metric.key], group["deviations"][metric.key]
    if value is None:
        return "-"
    return f"{value * metric.scale:.{metric.digits}f} ±{spread * metric.scale:.{metric.digits}f}"


def _told(group: Sequence[Point]) -> dict[str, Any]:
    means, deviations = dict[str, float | None](), dict[str, float | None]()
    for key in (key for key, metric in METRICS.items() if metric.is_number):
        values = [finite(point[key]) for point in group]
        known = [value for value in values if value is not None]
        whole = len(known) == len(group)
        means[key], deviations[key] = (mean(known), stdev(known)) if whole else (None, None)
    facts = {key: group[0][key] for key in FACTS if key not in ("member", "seed")}
    return {"members": [point["member"] for point in group], **facts, "means": means, "deviations": deviations}
