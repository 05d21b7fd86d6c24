"""The axes of what a page shows: in what its members differ, and what each of them is there. No torch."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.reading import flat_entries
from sae_sweep.config.values import number
from sae_sweep.model.sites import parse_hook
from sae_sweep.plan.labels import varying
from sae_sweep.reporting.points import Point, SweepRecord

TITLES = {
    "sweep": "Sweep",
    "layer": "Layer",
    "site": "Site",
    "architecture": "Architecture",
    "width": "Width",
    "sparsity": "Sparsity",
    "lr": "lr",
    "seed": "Seed",
}
"""What every page may be filtered and coloured by; other keys in which members differ come after these."""
_SAID = {"site.layer", "site.hook", "training.lr", "seed"}
"""Keys that those say."""
COLOURS = 12
"""How many report.css has."""


def axes(record: SweepRecord, cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What scripts know of members beside their numbers.

    titles       by axis, of those in which members differ
    of           {member: {axis: value}}
    twins        {member: a number that members share who differ in their seed alone}
    colours      {architecture: a number below COLOURS}, the same in every report where there is no conflict
    controls     architectures that are controls
    """
    keys = [key for key in varying(record.configs.values()) if key not in _SAID]
    of = {point["member"]: _values(cell, point, record, keys) for cell in cells for point in cell["points"]}
    titles = TITLES | {key: key for key in keys}
    several = {key for key in titles if len({json.dumps(values.get(key)) for values in of.values()}) > 1}
    names = sorted({values["architecture"] for values in of.values()})
    controls = controls_of(record)
    return {
        "titles": {key: title for key, title in titles.items() if key in several},
        "of": of,
        "twins": _twins(cells),
        "colours": colours([name for name in names if name not in controls]),
        "controls": [name for name in names if name in controls],
    }


def controls_of(record: SweepRecord) -> set[str]:
    """The architectures, as reports call them, that are controls."""
    trained = {label: config["sae"].get("trained", "all") for label, config in record.configs.items()}
    return {point["architecture"] for point in record.points if trained.get(point["member"], "all") != "all"}


def colours(architectures: Sequence[str]) -> dict[str, int]:
    """A colour for each: that of its first form's place among all there are, or the next that is free."""
    known = list(ARCHITECTURES)
    found: dict[str, int] = {}
    for name in sorted(architectures, key=lambda name: (name not in known, name)):
        bases = [base for base in known if name == base or name.startswith((f"{base}_", f"{base} "))]
        first = known.index(max(bases, key=len)) if bases else len(known)
        places = [(first + step) % COLOURS for step in range(COLOURS)]
        found[name] = next((place for place in places if place not in found.values()), places[0])
    return found


def _values(cell: Mapping[str, Any], point: Point, record: SweepRecord, keys: Sequence[str]) -> dict[str, Any]:
    site = parse_hook(cell["key"]["site"]["out"])
    config = flat_entries(record.configs.get(point["member"], {}))
    own = {
        "sweep": record.sweeps.get(point["member"], record.name),
        "layer": site.layer,
        "site": site.kind or site.hook.removeprefix(f"blocks.{site.layer}."),
        "sparsity": f"{point['knob']} {number(point['knob_value'])}",
    }
    return {key: own[key] if key in own else point[key] for key in TITLES} | {key: config.get(key) for key in keys}


def _twins(cells: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Only those who have a twin are in it."""
    groups = [group["members"] for cell in cells for group in cell["seeds"]]
    return {label: number for number, labels in enumerate(groups) for label in labels}
