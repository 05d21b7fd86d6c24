"""The axes of a sweep: what its members differ in, by key, and how tables show it.

Beside the keys that names have (`labels.py`), kinds, sparsities and sizes are axes of their own. No torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sae_sweep.config.reading import flat_entries
from sae_sweep.config.saved import architecture_label, saved_knob
from sae_sweep.config.values import shown
from sae_sweep.plan.labels import axis_name, varying

KIND, SPARSITY, SIZE = "sae", "sparsity", "width"
MOST_CHARACTERS = 40
"""Of a value in a table."""

Entries = Mapping[str, Any]
"""A member's saved config, nested, without its runtime keys."""


@dataclass(frozen=True)
class Axis:
    """One column of a table of members."""

    key: str
    title: str
    values: Mapping[str, str]
    """By member's label, as one types it; `-` of a member that leaves it to its recipe, or has no such key."""


def axes(configs: Mapping[str, Entries]) -> list[Axis]:
    """Every axis along which members vary, given by label: kind, sparsity and size, then keys in the order of names."""
    flat = {label: flat_entries(entries) for label, entries in configs.items()}
    found = [
        Axis(KIND, KIND, {label: _kind_words(entries) for label, entries in configs.items()}),
        Axis(SPARSITY, SPARSITY, {label: _sparsity(entries["sae"]) for label, entries in configs.items()}),
        Axis(SIZE, SIZE, {label: _size(entries["sae"]) for label, entries in configs.items()}),
    ]
    for key in varying(configs.values()):
        found.append(Axis(key, axis_name(key), {label: _value(values.get(key)) for label, values in flat.items()}))
    return [axis for axis in found if len(set(axis.values.values())) > 1]


def _kind_words(config: Entries) -> str:
    site = config["site"]
    output, across = bool(site.get("output")), bool(site.get("across") or site.get("models"))
    form = {(True, False): " transcoder", (False, True): " crosscoder", (True, True): " clt"}.get((output, across), "")
    return architecture_label(config) + form


def _sparsity(sae: Entries) -> str:
    knob, value = saved_knob(sae)
    return f"{knob} {_value(value)}"


def _size(sae: Entries) -> str:
    width, expansion = sae.get("width"), sae.get("expansion")
    return f"x{_value(expansion)}" if width is None else _value(width)


def _value(value: Any) -> str:
    text = "-" if value is None else shown(value)
    return text if len(text) <= MOST_CHARACTERS else f"...{text[-MOST_CHARACTERS:]}"
