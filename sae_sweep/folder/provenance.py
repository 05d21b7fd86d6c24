"""provenance.json of a member: by which command, on what and where it came to be. No torch.

command    config       resolved: what a recipe, the model or the site decided is no null
versions   commit       of the checkout that the program is of, with `+` where files were changed; null elsewhere
host       device       started, ended, wall_seconds
content    fingerprints of model, tokenizer and data; of an SAE that was trained elsewhere, of its files
"""

import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from socket import gethostname
from typing import Any

from sae_sweep.config.reading import config_entries
from sae_sweep.data.kinds import data_kind
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.folder.names import PROVENANCE
from sae_sweep.model.facts import FACTS, model_facts
from sae_sweep.plan.fingerprints import file_states, fingerprints, hashed
from sae_sweep.plan.members import Member

LIBRARIES = ("sae-sweep", "torch", "transformers", "datasets", "tokenizers", "safetensors", "numpy", "numba")
OPTIONAL = ("transformer-lens", "bitsandbytes")
ROOT = Path(__file__).parents[2]


def write_provenance(folder: Path, member: Member, device: str, started: datetime) -> None:
    """Write it, for a member that ends now."""
    entries = {
        "config": resolved_entries(member),
        "device": device,
        **_program(started),
        "content": hashed(fingerprints(member.config)),
    }
    write_json_atomic(folder / PROVENANCE, entries)


def write_import(folder: Path, source: str, files: Iterable[Path], started: datetime) -> None:
    """Write that of an SAE that was trained elsewhere and is brought here now, from these files."""
    found = {"reference": source, "folder": Path(), "files": file_states((str(file), file) for file in files)}
    write_json_atomic(folder / PROVENANCE, {**_program(started), "content": hashed({"source": found})})


def _program(started: datetime) -> dict[str, Any]:
    """What ran where, from when to now."""
    ended = datetime.now(UTC)
    return {
        "command": command(),
        "versions": versions(),
        "commit": commit(),
        **host_facts(),
        "started": started.isoformat(timespec="seconds"),
        "ended": ended.isoformat(timespec="seconds"),
        "wall_seconds": round((ended - started).total_seconds(), 1),
    }


def command() -> str:
    """The command line of this process, as it was typed; from Python the one that does the same."""
    words = sys.orig_argv
    place = next((i for i, word in enumerate(words) if word == "sae_sweep.cli" or Path(word).name == "sae-sweep"), None)
    if place is not None:
        return shlex.join(["sae-sweep", *words[place + 1 :]])
    from_python = sys.argv[:1] == ["sae-sweep"]
    return shlex.join([word for word in sys.argv if word != "--multirun"] if from_python else words)


def resolved_entries(member: Member) -> dict[str, Any]:
    """Its config, with what follows from its plan, its model and its inputs where the config says null."""
    entries, site = config_entries(member.resolved), member.site
    decided: dict[str, dict[str, Any]] = {
        "site": {"hook": site.hook, "layer": site.layer, "width": member.widths[site.hook]},
        "sae": {"expansion": member.width / member.d, **member.config.sae.resolved(member.d_out)},
        "evaluation": {"later_sites": len(member.watched)},
    }
    if data_kind(member.config.data.kind).MODEL:
        facts = model_facts(member.config.model)
        decided["model"] = {name: getattr(facts, name) for name in FACTS}
    for group, values in decided.items():
        entries[group] |= {key: value for key, value in values.items() if entries[group].get(key) is None}
    return entries


def host_facts() -> dict[str, str]:
    """The machine that this process is on."""
    return {"host": gethostname(), "platform": platform.platform()}


@cache
def versions() -> dict[str, str]:
    """Of the interpreter and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *OPTIONAL):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> str | None:
    """Of the checkout that the program is of, with `+` where files were changed; None elsewhere."""
    if not (ROOT / ".git").exists():
        return None
    asked = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
    try:
        commit, changed = (
            subprocess.run(["git", "-C", ROOT, *words], capture_output=True, text=True, check=True, timeout=10).stdout
            for words in asked
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.strip() + "+" * bool(changed.strip())
