"""The union of grids that Hydra cannot say: which jobs a list of grids and a command line ask for.

An axis is one key with the values it takes; a grid is the product of its axes; a sweep is the union of its grids.
The command line has the last word:

* a value replaces its key in the grids that list it, and joins all grids if none does;
* a group choice (`sae=gated`) keeps only the grids that list it, and joins those that list no choice of that group;
* `sae.l0` serves every architecture, so it replaces every grid's own knob, and a knob replaces `sae.l0` where it lands.
"""

from collections.abc import Container, Mapping, Sequence
from itertools import islice, product
from math import prod
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError

MOST_MEMBERS = 10_000
"""Of one sweep."""
Axes = dict[str, list[str]]
"""Values by key, each as the whole override (`sae.l1=0.001`)."""

L0 = "sae.l0"
PRESET = "_paper"
"""What the files of `configs/sae/` that have the papers' values end in."""
SPARSITY = frozenset({L0, *(f"sae.{facts.Config.knob()}" for facts in ARCHITECTURES.values())})
"""The keys of which a member takes one."""


def sweep_jobs(
    grids: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    command_line: Sequence[str],
    parser: OverridesParser,
    groups: Container[str],
) -> list[list[str]]:
    """The overrides of every job, each once. `params` are axes of every grid that does not list their key.

    `groups` has the keys that choose a file of a config group.

    Raises ConfigError when no grid is left, and for a grid that cannot be read.
    """
    asked = {override.key_or_group: _values(override) for override in parser.parse_overrides(list(command_line))}
    under = _config_axes(params, "hydra.sweeper.params", parser)
    listed = [_config_axes(grid, f"hydra.sweeper.grids[{number}]", parser) for number, grid in enumerate(grids)]
    listed = [_joined(under, grid) for grid in listed or [{}]]
    for key in [key for key in asked if key in groups and any(key in grid for grid in listed)]:
        listed = _matching(listed, key, asked.pop(key))
    axes = [list(grid.values()) for grid in _overridden(listed, asked)]
    check_number(sum(prod(map(len, grid)) for grid in axes), "the product of the axes")
    jobs = [job for grid in axes for job in product(*grid)]
    distinct = {frozenset(job): list(job) for job in reversed(jobs)}
    return list(reversed(distinct.values()))


def _joined(under: Axes, grid: Axes) -> Axes:
    return {key: values for key, values in under.items() if not (key in SPARSITY and SPARSITY & grid.keys())} | grid


def _matching(grids: Sequence[Axes], group: str, choices: Sequence[str]) -> list[Axes]:
    """The grids that have one of the choices, each with those only."""
    kept = []
    for grid in grids:
        common = [own for choice in choices if (own := _listed(choice, grid.get(group, choices)))]
        if common:
            kept.append(grid | {group: common})
    if not kept:
        known = sorted({choice.split("=", 1)[1] for grid in grids for choice in grid[group]})
        raise ConfigError(f"{', '.join(choices)}: no grid of this experiment has it; they have {', '.join(known)}")
    return kept


def _listed(choice: str, known: Sequence[str]) -> str | None:
    """A choice as a grid has it: a paper's experiment lists its presets, and `sae=gated` means `sae=gated_paper`."""
    return next((name for name in (choice, f"{choice}{PRESET}") if name in known), None)


def _overridden(grids: Sequence[Axes], asked: Axes) -> list[Axes]:
    """The grids with the command line's axes where they land."""
    results = []
    for grid in grids:
        landed = {
            key: values
            for key, values in asked.items()
            if key == L0 or key in grid or not any(key in other for other in grids)
        }
        gone = {*landed, *SPARSITY} if SPARSITY & landed.keys() else landed.keys()
        results.append({key: values for key, values in grid.items() if key not in gone} | landed)
    return results


def _config_axes(entries: Any, where: str, parser: OverridesParser) -> Axes:
    if not isinstance(entries, Mapping):
        raise ConfigError(f"{where}={shown(entries)} is not a mapping of keys to values")
    lines = []
    for key, value in entries.items():
        if not isinstance(key, str) or key.startswith(("hydra.", "hydra/")):
            raise ConfigError(f"{where}: {key} cannot be swept; list keys and groups of a member")
        if value == []:
            raise ConfigError(f"{where}: {key}=[] has no values; give at least one")
        lines += [f"{key}={_text(element)}" for element in (value if isinstance(value, list) else [value])]
    axes: Axes = {}
    for override in parser.parse_overrides(lines):
        axes.setdefault(override.key_or_group, []).extend(_values(override))
    return axes


def _text(value: Any) -> str:
    return value if isinstance(value, str) else shown(value)


def _values(override: Override) -> list[str]:
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if not override.is_discrete_sweep():
        raise ConfigError(f"{override.input_line}: an interval has no values to train; list them, or use range(...)")
    values = list(islice(override.sweep_string_iterator(), MOST_MEMBERS + 1))
    if not values:
        raise ConfigError(f"{override.input_line}: gives no value; give at least one")
    check_number(len(values), str(override.input_line))
    return [f"{override.get_key_element()}={value}" for value in values]


def check_number(members: int, asked: str) -> None:
    """Raises ConfigError for more members than a sweep may have."""
    if members > MOST_MEMBERS:
        raise ConfigError(f"{asked}: asks for over {MOST_MEMBERS} members, the most of one sweep; take fewer values")
