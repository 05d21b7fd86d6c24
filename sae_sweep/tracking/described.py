"""What a run is, in words and in values that runs are filtered by: of a member, from its plan or from its folder, and
of the whole sweep."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeGuard

from sae_sweep.config.saved import architecture_label, saved_sae, wrong_value
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.data.kinds import data_kind
from sae_sweep.folder.names import PROVENANCE
from sae_sweep.folder.provenance import command, commit, host_facts, resolved_entries
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.members import Member
from sae_sweep.tracking.runs import SWEEP, TrackedRun

OURS = ("output_dir", "dry_run", "tracking", "launcher")
"""Entries of a config that are not of the member."""
MOST_TAG = 64
"""Characters that wandb takes."""


def member_run(member: Member, asked: TrackingConfig) -> TrackedRun:
    """The run of a planned member."""
    return entries_run(member.label, member.identity, resolved_entries(member), asked, member.words)


def entries_run(label: str, identity: str, entries: Mapping[str, Any], asked: TrackingConfig, words: str) -> TrackedRun:
    """The run of a member, from the entries of its resolved config."""
    flat = _facts(entries)
    named = (flat.get(key) for key in ("architecture", "model_name", "hook"))
    tags = _tags([str(value) for value in named if value is not None], asked)
    config = {**_stated({key: value for key, value in entries.items() if key not in OURS}), **flat}
    return TrackedRun(label, identity, label, "train", config, tags, asked.notes or words)


def sweep_run(name: str, task: str | None, members: Sequence[Member], asked: TrackingConfig) -> TrackedRun:
    """The run of a sweep; where workers train its groups, of each of them."""
    first = members[0].config
    config = {
        "sweep": name,
        "command": command(),
        "commit": commit(),
        **host_facts(),
        "members": len(members),
        "architectures": sorted({member.config.sae.method() for member in members}),
        "hooks": list(dict.fromkeys(member.site.name for member in members)),
        "model_name": _model(first.model.path, first.model.name, first.data.kind),
        "tokens": int(first.training.tokens),
    }
    return _of_sweep(name, task, config, asked)


def past_sweep_run(folder: Path, members: Mapping[str, Mapping[str, Any]], asked: TrackingConfig) -> TrackedRun:
    """The run of a sweep that is on disk: as the provenance of its last finished member has it."""
    config: dict[str, Any] = {"sweep": folder.name, "members": len(members)}
    for label in reversed(list(members)):
        try:
            found = read_object(folder / label / PROVENANCE)
        except (OSError, ValueError):
            continue
        if not is_config(found.get("config")):
            continue
        config |= {key: found.get(key) for key in ("command", "commit", "host", "platform", "device")}
        config |= {key: value for key, value in _facts(found["config"]).items() if key in ("model_name", "tokens")}
        break
    config["architectures"] = sorted({architecture_label(entry["config"]) for entry in members.values()})
    return _of_sweep(folder.name, None, config, asked)


def is_config(entries: Any) -> TypeGuard[dict[str, Any]]:
    """Whether saved entries are a member's config, with values that it may have."""
    groups = ("model", "site", "data", "sae", "training", "evaluation")
    shaped = isinstance(entries, dict) and all(isinstance(entries.get(group), dict) for group in groups)
    return shaped and isinstance(entries["sae"].get("architecture"), str) and wrong_value(entries) is None


def _of_sweep(name: str, task: str | None, config: Mapping[str, Any], asked: TrackingConfig) -> TrackedRun:
    identity = sha256((task or "sweep").encode()).hexdigest()[:16]
    tags = _tags([str(config.get("model_name") or "")], asked)
    shown = name if task is None else f"{name} {task}"
    return TrackedRun(SWEEP, identity, shown, "sweep", _stated(config), tags, asked.notes or f"the sweep {name}")


def _facts(entries: Mapping[str, Any]) -> dict[str, Any]:
    """What runs are filtered by, flat."""
    sae, training, site, data = (entries[group] for group in ("sae", "training", "site", "data"))
    known, model = saved_sae(sae), entries["model"]
    knob = None if known is None else known.knob()
    value = sae.get("l0") if sae.get("l0") is not None else sae.get(knob or "")
    target = sae.get("l0") if sae.get("l0") is not None else sae.get("k")
    facts = {
        "architecture": architecture_label(entries),
        "model_name": _model(model.get("path"), model.get("name"), data["kind"]),
        "layer": site.get("layer"),
        "hook": site.get("hook"),
        "d_in": site.get("width"),
        "width": sae.get("width"),
        "lr": training.get("lr"),
        "sparsity_key": "l0" if sae.get("l0") is not None else knob,
        "sparsity_value": value,
        "sparsity_target": target,
        "tokens": training.get("tokens"),
        "batch_size": training.get("batch_size"),
        "context": data.get("context"),
        "objective": training.get("objective"),
        "seed": entries.get("seed"),
    }
    return _stated(facts)


def _model(path: str | None, name: str | None, kind: str) -> str | None:
    if not data_kind(kind).MODEL:
        return kind
    return name if path is None else Path(path).name


def _stated(entries: Mapping[str, Any]) -> dict[str, Any]:
    """Entries, nested ones too, without those that are null."""
    plain = {key: _stated(value) if isinstance(value, Mapping) else value for key, value in entries.items()}
    return {key: value for key, value in plain.items() if value is not None}


def _tags(own: Sequence[str], asked: TrackingConfig) -> list[str]:
    return [tag[:MOST_TAG] for tag in dict.fromkeys([*own, *(asked.tags or [])]) if tag]
