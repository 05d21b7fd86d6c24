"""A sweep's folder read back: one point per finished member, and what became of the others."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sae_sweep.architectures.recipe import Run
from sae_sweep.config.saved import architecture_label, saved_knob, saved_sae
from sae_sweep.config.values import finite
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS, closed
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.constants import TRIMMED_SHARE
from sae_sweep.reporting.cell import cell_key

Point = dict[str, Any]
"""A finished member, flat: `member`, what it is (FACTS), whether it was `trimmed`, every metric, `cell`, the key of its
cell, and `twin`, what it shares with members that differ from it in their seed alone."""

FACTS = ("member", "architecture", "variant", "width", "knob", "knob_value", "lr", "seed")
BASELINES = ("ce_clean", "ce_zero", "ce_mean")


@dataclass(frozen=True)
class SweepRecord:
    """What a sweep's folder says."""

    name: str
    points: list[Point]
    """Finished members, in the order of sweep.json."""
    unfinished: list[dict[str, str]]
    """member, state and reason of every other member."""
    notes: list[str]
    """One line for each finished member whose metrics cannot be read."""
    configs: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """What each point's member was asked to be, by its label; SAEs that were trained elsewhere have none."""
    folders: dict[str, Path] = field(default_factory=dict)
    """Each point's own, by its label."""
    sweeps: dict[str, str] = field(default_factory=dict)
    """The name of each point's sweep, by its label, where there are several."""
    roots: dict[str, Path] = field(default_factory=dict)
    """The folder of each sweep, by its name."""


def read_sweep(folder: Path, latest: Mapping[str, Mapping[str, Any]] | None = None) -> SweepRecord:
    """Read sweep.json and each finished member's metrics.json; of others, what they were `latest` judged to be, by
    label, makes points. Raises ConfigError where sweep.json cannot be read."""
    sweep = read_record(folder)
    name = str(sweep.get("name", folder.name))
    record = SweepRecord(name, [], [], [], roots={name: folder})
    for label, entry in sweep["members"].items():
        if latest is not None and label in latest:
            record.points.append(made_point(folder / label, label, entry["config"], closed(latest[label])))
            continue
        if entry["state"] != "finished":
            record.unfinished.append(
                {"member": label, "state": str(entry["state"]), "reason": str(entry.get("reason") or "")}
            )
            continue
        try:
            record.points.append(read_point(folder / label, label, entry["config"]))
            record.configs[label], record.folders[label] = entry["config"], folder / label
        except (ValueError, ConfigError) as error:
            record.notes.append(f"{label}: left out, {error}")
    tell_apart(record.points, record.configs)
    for file in sorted((folder / names.FOREIGN).glob(f"*/{names.ORIGIN}")):
        label = f"{names.FOREIGN}/{file.parent.name}"
        try:
            record.points.append(read_foreign(file.parent, label))
            record.folders[label] = file.parent
        except (OSError, ValueError, KeyError, TypeError) as error:
            record.notes.append(f"{label}: left out, {error}")
    return record


def tell_apart(points: Sequence[Point], configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Call an architecture trained as in its paper so, where there are others of it, too: they share no curve."""
    papers = {label for label, config in configs.items() if config["sae"].get("recipe", "paper") == "paper"}
    tuned = {point["architecture"] for point in points if point["member"] not in papers}
    for point in points:
        if point["member"] in papers and point["architecture"] in tuned:
            point["architecture"] += " paper"


def read_foreign(folder: Path, label: str) -> Point:
    """The point of an SAE that was trained elsewhere and judged into the sweep. Raises ValueError, KeyError or
    TypeError on files that cannot be used."""
    origin = read_object(folder / names.ORIGIN)
    facts = {"architecture": f"{origin['form']} foreign", "variant": None, "width": origin["width"], "knob": "k"}
    return {
        "cell": cell_key(origin["judged"], None),
        "twin": label,
        "member": label,
        **facts,
        "knob_value": None,
        "lr": None,
        "seed": None,
        "trimmed": False,
        **read_metrics(folder / names.METRICS),
    }


def read_point(folder: Path, label: str, config: Mapping[str, Any]) -> Point:
    """The point of one finished member. Raises ValueError, in one line, on metrics that cannot be used."""
    return made_point(folder, label, config, read_metrics(folder / names.METRICS))


def made_point(folder: Path, label: str, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> Point:
    """The point of a member with these metrics."""
    exported = _read_export(folder / names.CARD)
    sae, training = config["sae"], config["training"]
    width = sae.get("width") or exported.get("d_sae") or _width_from_expansion(config)
    knob, value = saved_knob(sae)
    return {
        "cell": cell_key(config, exported.get("hook_name"), exported.get("hook_name_out")),
        "twin": json.dumps({**config, "seed": None}, sort_keys=True),
        "member": label,
        "architecture": architecture_label(config),
        "variant": sae.get("variant"),
        "width": width,
        "knob": knob,
        "knob_value": value,
        "lr": training.get("lr") or _recipe_lr(sae, training, exported.get("d_in"), width),
        "seed": config.get("seed"),
        "trimmed": _trimmed(value if knob == "l0" else None, metrics["l0_untrimmed"]),
        **metrics,
    }


def _trimmed(asked: float | None, untrimmed: float | None) -> bool:
    """Whether a member was cut to the L0 that was asked for, rather than trained to it."""
    return asked is not None and untrimmed is not None and abs(untrimmed - asked) > TRIMMED_SHARE * asked


def read_metrics(file: Path) -> dict[str, Any]:
    """A member's metrics: non-finite values and missing keys as None, and keys that are not ours as they are.

    Raises ValueError where the file cannot be read, or holds something else than a number.
    """
    try:
        raw = read_object(file, finite=False)
    except OSError as error:
        raise ValueError(f"metrics.json cannot be read ({error.strerror})") from error
    except ValueError as error:
        why = str(error) if type(error) is ValueError else "not valid JSON"
        raise ValueError(f"metrics.json is damaged ({why})") from error
    wrong = [key for key, metric in METRICS.items() if metric.is_number and not _is_number(raw.get(key))]
    if wrong:
        raise ValueError(f"metrics.json is damaged ({wrong[0]} is {str(raw[wrong[0]])[:40]!r}, not a number)")
    return closed({key: finite(value) if _is_number(value) else value for key, value in raw.items()})


def _read_export(file: Path) -> dict[str, Any]:
    """Width and hook as the exported weights' cfg.json states them; empty where it does not."""
    try:
        raw = read_object(file, finite=False)
    except (OSError, ValueError):
        return {}
    metadata = raw.get("metadata")
    return {**raw, **metadata} if isinstance(metadata, dict) else raw


def _width_from_expansion(config: Mapping[str, Any]) -> int | None:
    d, expansion = config["model"].get("d_model"), config["sae"].get("expansion")
    at_d_model = config["site"].get("kind") in ("resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out")
    return round(d * expansion) if d and expansion and at_d_model else None


def _recipe_lr(sae: Mapping[str, Any], training: Mapping[str, Any], d: int | None, width: int | None) -> float | None:
    """What the recipe makes of a learning rate that was left to it."""
    config = saved_sae(sae)
    if config is None or width is None or (d is None and config.recipe != "paper"):
        return None
    steps = max(1, int(training["tokens"]) // int(training["batch_size"]))
    return config.training_recipe(Run(steps, int(training["batch_size"]), d or 1, width)).lr


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
