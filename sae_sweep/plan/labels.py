"""What members are called: their kind, sparsity and width, then every axis that varies, `topk-k_16-x16-L1-lr_1e-3-s0`.

An axis is a key in which members of one kind differ. Two kinds differ in much that nobody chose, as their recipes do,
and the kind is in the name already.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sae_sweep.architectures.base import ARCHITECTURES
from sae_sweep.config.reading import flat_entries, known_keys
from sae_sweep.config.saved import later_keys, saved_sae
from sae_sweep.config.schema import MemberConfig
from sae_sweep.config.values import shown
from sae_sweep.plan.members import Member, identity_entries, sparsity

MOST_CHARACTERS = 120
"""Of a name: a file system takes 255 bytes, less what a temporary name adds."""
_NAMED = {"sae.architecture", "sae.variant", "sae.l0", "sae.width", "sae.expansion", "training.objective"}
"""Keys that the first words of a name say, beside architectures' knobs."""
_LETTERS = {"seed": "s", "site.layer": "L"}
_SPEAKS = (
    *("site.kind", "site.hook", "model.path", "model.adapter", "model.quantize", "data.kind", "data.path"),
    "init_from",
)
"""Keys whose values say what they are."""


def base_label(config: MemberConfig) -> str:
    """The member's name before its axes, e.g. gated-l1_0.0006-x16, or topk-k_32-x8-e2e."""
    knob, value = sparsity(config)
    size = f"w{config.sae.width}" if config.sae.width is not None else f"x{_short(config.sae.expansion)}"
    output, several = config.site.output is not None, bool(config.site.across or config.site.models)
    form = {(True, False): "_transcoder", (False, True): "_crosscoder", (True, True): "_clt"}.get((output, several), "")
    objective = "" if config.training.local else f"-{config.training.objective}"
    origin = "" if config.init_from is None else "-finetuned"
    return f"{config.sae.method()}{form}-{knob}_{_short(value)}-{size}{objective}{origin}"


def new_labels(members: Iterable[Member], here: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, str]:
    """Each member's name by identity. Those that are `here` already, entries of sweep.json by their names, keep theirs;
    the axes are those of both together. A name that is still not its own gets hex digits of the identity."""
    here, members = here or {}, list(members)
    labels = {str(entry["identity"]): label for label, entry in here.items()}
    found = [entry["config"] for entry in here.values()]
    fresh = [member for member in members if member.identity not in labels]
    axes = varying([*found, *(identity_entries(member.config) for member in members)])
    heads = {key: _head(key) for key in axes}
    names = {member.identity: _label(member, heads) for member in fresh}
    shared = Counter([*here, *names.values()])
    for identity, name in names.items():
        single = shared[name] == 1 and len(name) <= MOST_CHARACTERS
        labels[identity] = name if single else suffixed(name[:MOST_CHARACTERS], identity, {*here, *labels.values()})
    return {member.identity: labels[member.identity] for member in members}


def suffixed(base: str, identity: str, taken: Iterable[str]) -> str:
    """The base label with as many hex digits of the identity as make it unique, at least 4."""
    names = set(taken)
    return next(
        label for digits in range(4, len(identity) + 1) if (label := f"{base}-{identity[:digits]}") not in names
    )


def varying(configs: Iterable[Mapping[str, Any]]) -> list[str]:
    """The keys in which members of one kind differ, in the order of their names; the seed comes last."""
    seen: dict[tuple[object, ...], dict[str, set[str]]] = {}
    for config in configs:
        values = seen.setdefault(_kind(config), {})
        for key, value in {**later_keys(config["sae"]["architecture"]), **flat_entries(config)}.items():
            values.setdefault(key, set()).add(shown(value))
    named = _NAMED | {f"sae.{facts.Config.knob()}" for facts in ARCHITECTURES.values()}
    several = {key for values in seen.values() for key, found in values.items() if len(found) > 1 and key not in named}
    order = [*(key for key in known_keys() if key != "seed"), "seed"]
    return [key for key in order if key in several]


def axis_name(key: str) -> str:
    """The last word of a key, where it is no other's; else all of it."""
    name = key.rpartition(".")[2]
    others = (known for known in known_keys() if known != key and not known.startswith("evaluation."))
    alone = not key.startswith("evaluation.") and all(other.rpartition(".")[2] != name for other in others)
    return name if alone else key


def _kind(config: Mapping[str, Any]) -> tuple[object, ...]:
    sae, site = saved_sae(config["sae"]), config["site"]
    method = config["sae"]["architecture"] if sae is None else sae.method()
    objective = config["training"].get("objective", "local")
    places = (site.get(key) is None for key in ("output", "across", "models"))
    return method, *places, objective, "init_from" in config


def _head(axis: str) -> str:
    """What stands before an axis's value in a name."""
    return _LETTERS.get(axis, "" if axis in _SPEAKS else f"{axis_name(axis)}_")


def _label(member: Member, heads: Mapping[str, str]) -> str:
    values = flat_entries({"seed": member.config.seed, "init_from": member.config.init_from, **_groups(member.config)})
    if member.site.layer is not None:
        values["site.layer"] = member.site.layer
    words = [head + _word(key, values[key]) for key, head in heads.items() if values.get(key) is not None]
    return "-".join([base_label(member.config), *words])


def _groups(config: MemberConfig) -> dict[str, Any]:
    found = {key: value for key, value in identity_entries(config).items() if key not in ("seed", "init_from")}
    return found | {"sae": {**found["sae"], "recipe": config.sae.recipe}}


def _word(key: str, value: Any) -> str:
    """What a name says of an axis's value: no `-`, which parts its words, and nothing that no folder can be called."""
    if isinstance(value, float):
        return _short(value) if abs(value) >= 0.01 else _exponent(value)
    text = Path(value).name if key in _SPEAKS and isinstance(value, str) else shown(value)
    return re.sub(r"[^\w.+]+", "_", text, flags=re.ASCII).strip("_")[-40:]


def _exponent(value: float) -> str:
    """1e-3, 7.5e-4."""
    mantissa, _, exponent = f"{value:.5e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if value else "0"


def _short(value: float | None) -> str:
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
