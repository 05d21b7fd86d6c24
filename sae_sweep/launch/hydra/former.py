"""A sweep that was begun before defaults changed keeps the values it was begun with.

Members are known by their values, so a command that leaves a key to its default asks for another member once that
default is another. Where the folder holds a member as the same command asked for it before, that one is meant.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from sae_sweep.config.reading import member_config
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.data.kinds import data_kind
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.folder.sweep import sweep_root
from sae_sweep.launch.hydra.composition import compose_jobs
from sae_sweep.launch.hydra.grids import PRESET
from sae_sweep.launch.tables import say
from sae_sweep.plan.members import changed, identity_entries, member_identity

OF_MODELS = ("data.max_norm_ratio=null",)
"""Other values that were defaults, of members on a language model."""
SHORT_RUNS = ("training.lr=6e-3", "training.lr_decay_fraction=0.5")
OF_EXPERIMENTS = {"demo": SHORT_RUNS, "architectures": SHORT_RUNS, "tokenized": SHORT_RUNS, "transcoders": SHORT_RUNS}
"""The same of experiments that ship."""
RESAMPLED = ("gated", "p_anneal", "standard")
"""Options of `sae` that set dead latents anew."""
SHOWN_KEYS = 6


def kept(
    loader: ConfigLoader, master: DictConfig, jobs: Sequence[Sequence[str]], configs: Sequence[MemberConfig]
) -> list[MemberConfig]:
    """The configs of jobs, of each the former one where the sweep's folder holds that and not today's. Says so."""
    root = sweep_root(configs[0]) if configs else None
    if root is None or not (root / names.SWEEP).is_file():
        return list(configs)
    here = {entry["identity"] for entry in read_record(root)["members"].values()}
    if all(member_identity(config) in here for config in configs):
        return list(configs)
    chosen = list(configs)
    for state in (_guarded, _tuned, _former):  # the latest first
        overrides = [state(loader, job, config) for job, config in zip(jobs, configs, strict=True)]
        before = map(member_config, compose_jobs(loader, master, overrides))
        chosen = [
            old if member_identity(now) not in here and member_identity(old) in here else now
            for now, old in zip(chosen, before, strict=True)
        ]
    changes = dict[str, str]()
    for now, own in zip(configs, chosen, strict=True):
        if own is not now:
            changes |= _changes(now, own)
    if changes:
        more = f", and {len(changes) - SHOWN_KEYS} more" * (len(changes) > SHOWN_KEYS)
        told = ", ".join(list(changes.values())[:SHOWN_KEYS]) + more
        say(f"{root} was begun with other defaults, which its members keep: {told}; another name= takes today's")
    return chosen


def _stated(loader: ConfigLoader, job: Sequence[str]) -> dict[str, Any]:
    """By key, what the overrides of a job say."""
    overrides = OverridesParser.create(loader).parse_overrides(list(job))
    return {override.key_or_group: override.value() for override in overrides}


def _guarded(loader: ConfigLoader, job: Sequence[str], config: MemberConfig) -> list[str]:
    """The overrides of a job when activations were outliers from ten times the median on: what it states stays."""
    ratio = config.data.max_norm_ratio == "auto" and "data.max_norm_ratio" not in _stated(loader, job)
    return [*job, *(("data.max_norm_ratio=10",) * ratio)]


def _tuned(loader: ConfigLoader, job: Sequence[str], config: MemberConfig) -> list[str]:
    """The overrides of a job when biases had the lr of weights, and some were resampled: what it states stays."""
    stated = _stated(loader, job)
    recipe = config.sae.recipe == "balanced" and "sae.recipe" not in stated
    resample = stated.get("sae", "gated") in RESAMPLED and "sae.resample" not in stated
    guarded = _guarded(loader, job, config)
    return [*guarded, *(("sae.recipe=tuned",) * recipe), *(("sae.resample=true",) * resample)]


def _former(loader: ConfigLoader, job: Sequence[str], config: MemberConfig) -> list[str]:
    """The overrides of a job when papers' recipes were the defaults: what it states stays."""
    parsed = _stated(loader, job)
    options = loader.get_group_options("sae")
    option = str(parsed.get("sae", "gated"))
    preset = [f"sae={option}{PRESET}"] if f"{option}{PRESET}" in options else []
    others = [
        *OF_EXPERIMENTS.get(str(parsed.get("experiment")), ()),
        *(OF_MODELS if data_kind(config.data.kind).MODEL else ()),
    ]
    return [
        *(text for text in job if not (preset and text.startswith("sae="))),
        *preset,
        *(text for text in others if text.partition("=")[0] not in parsed),
    ]


def _changes(now: MemberConfig, own: MemberConfig) -> dict[str, str]:
    """What differs between two configs, in words, by key."""
    found = changed(identity_entries(own), now)
    return {key: f"{key} {shown(was)} (now {shown(today)})" for key, (was, today) in found.items()}
