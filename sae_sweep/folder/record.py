"""sweep.json: the entries that say what was asked of a sweep, its plan, and each member's state. No torch here.

What a task's worker says of its members, in its own states.json, goes before what sweep.json says.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from sae_sweep.config.saved import wrong_value
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object
from sae_sweep.plan.fingerprints import MODEL_KEYS, check_same
from sae_sweep.plan.groups import Plan
from sae_sweep.plan.members import Member, identity_entries

VERSION = 1
STATES = ("planned", "running", "interrupted", "finished", "failed")
_LABEL = re.compile(r"\w[\w.+-]*")
_ENTRY = {"identity": str, "state": str, "config": dict}
"""What each member has, of which type."""
_GROUPS = ("model", "site", "data", "sae", "training", "evaluation")


def new_record(name: str) -> dict[str, Any]:
    """The entries of a sweep without members."""
    return {"version": VERSION, "name": name, "members": {}, "plan": []}


def read_record(root: Path) -> dict[str, Any]:
    """The entries of a sweep's sweep.json, brought up to date with what its tasks say.

    Raises ConfigError when the file cannot be read, is of another version, or lacks what each member has.
    """
    file = root / names.SWEEP
    try:
        entries = read_object(file)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); give another name=") from error
    except ValueError as error:
        raise ConfigError(f"{file}: not valid JSON ({error}); restore it, or give another name=") from error
    if entries.get("version") != VERSION:
        raise ConfigError(f"{file}: written by another version of sae-sweep; give another name=")
    if wrong := _damage(entries.get("members")):
        raise ConfigError(f"{file}: {wrong}; restore it, or give another name=")
    members: dict[str, Any] = entries["members"]
    for states in sorted((root / names.STATE / names.TASKS).glob(f"*/{names.STATES}")):
        for label, entry in read_states(states).items():
            if label in members:
                members[label] = members[label] | entry
    return entries


def read_states(file: Path) -> dict[str, Any]:
    """What a task has said of its members; nothing where it has not, or is gone."""
    try:
        states = read_object(file)
    except (OSError, ValueError):
        return {}
    return {label: entry for label, entry in states.items() if _is_state(entry)}


def member_entry(member: Member, content: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of a member that is to be trained, on content of these fingerprints."""
    config = identity_entries(member.config)
    return {"identity": member.identity, "state": "planned", "reason": None, "config": config, "content": content}


def check_content(plan: Plan, here: Mapping[str, Any], resumed: Collection[str] = ()) -> None:
    """Raises ConfigError where members of a sweep were begun on other content than the plan's members would read now
    under the same names. Of those that failed, or never began, it may have been mended, but for the model where they
    go on from a checkpoint (`resumed` identities); entries that older versions wrote do not say it."""
    for config in {group.key: group.members[0].config for group in plan.groups}.values():
        for label, entry in here.items():
            kept = entry.get("content")
            if not isinstance(kept, Mapping):
                continue
            if entry["state"] not in ("failed", "planned"):
                check_same(kept, config, label)
            elif entry["identity"] in resumed:
                check_same({key: kept[key] for key in MODEL_KEYS if key in kept}, config, label)


def plan_entries(plan: Plan) -> list[dict[str, Any]]:
    """The groups of a plan, and the banks of each."""
    return [
        {
            "group": group.key,
            "hooks": list(group.hooks),
            "banks": [
                {
                    "hook": bank.site.name,
                    "architecture": bank.members[0].config.sae.architecture,
                    "batch_size": bank.members[0].config.training.batch_size,
                    "members": [member.label for member in bank.members],
                }
                for bank in group.banks
            ],
        }
        for group in plan.groups
    ]


def _damage(members: Any) -> str | None:
    """What is wrong with the members, in words; None where nothing is.

    Their labels are names of folders: one that leads out of the sweep's own is refused.
    """
    if not isinstance(members, Mapping):
        return "it has no members"
    for label, entry in members.items():
        if not _LABEL.fullmatch(label):
            return f"its member {label!r} has no plain folder name"
        if not isinstance(entry, dict) or not all(isinstance(entry.get(key), kind) for key, kind in _ENTRY.items()):
            return f"its member {label} lacks one of {', '.join(_ENTRY)}"
        if not all(isinstance(entry["config"].get(group), dict) for group in _GROUPS):
            return f"the config of its member {label} lacks one of {', '.join(_GROUPS)}"
        if not _is_state(entry):
            return f"its member {label} is in no state that there is"
        if wrong := wrong_value(entry["config"]):
            return f"the config of its member {label} is damaged: {wrong}"
    return None


def _is_state(entry: Any) -> bool:
    """Whether it says how a member stands."""
    reason = entry.get("reason") if isinstance(entry, dict) else 0
    return (reason is None or isinstance(reason, str)) and entry.get("state") in STATES
