"""Cells: what members must share to be compared."""

from collections.abc import Mapping
from typing import Any

from sae_sweep.config.schema import LATER
from sae_sweep.data.kinds import ModellessKind, data_kind, modelless_kind
from sae_sweep.model.sites import HOOK_OF_KIND, modelless_site, parse_hook

DEMO_MODEL = "demo"
"""What reports call the model that ships, whose path is null."""


def cell_key(
    config: Mapping[str, Any], exported_hook: str | None, exported_output: str | None = None
) -> dict[str, Any]:
    """What members must share to be compared: model, site, counted positions and held-out tokens.

    dtype is part of it because the baselines depend on it. Of synthetic activations: what they were drawn from.
    """
    model, evaluation, data = config["model"], config["evaluation"], config["data"]
    kind = data_kind(data["kind"])
    hook, output = modelless_site(data["kind"]).hook, None
    if kind.MODEL:
        hook, output = _hook(config["site"], exported_hook), config["site"].get("output")
    return {
        "model": _model(model, config["site"]) if kind.MODEL else data["kind"],
        "revision": model.get("revision"),
        "dtype": model.get("dtype"),
        "site": {"in": hook, "out": hook if output is None else exported_output or _in_blocks(output, hook)},
        "positions": evaluation.get("positions") if kind.MODEL else None,
        "evaluation": {
            "tokens": evaluation.get("tokens"),
            "data": {key: data.get(key, LATER.get(f"data.{key}")) for key in kind.HELDOUT},
        },
    }


def cell_title(key: Mapping[str, Any]) -> str:
    """A cell in a line: model, revision and site, or what synthetic activations are made of."""
    made, site = modelless(key), key["site"]
    if made is not None:
        return f"{made.NOUN} · {made.title(key['evaluation']['data'])}"
    model = " + ".join(part.rstrip("/").rpartition("/")[2] for part in str(key["model"]).split(" + "))
    revision = f" @ {key['revision']}" if key["revision"] else ""
    read, written = (_ends(site[side]) for side in ("in", "out"))
    places = read if site["in"] == site["out"] else f"{read} → {written}"
    return f"{model}{revision} · {places}"


def _ends(hooks: str) -> str:
    """Several hooks, of many the first and the last."""
    first, *others = hooks.split(" + ")
    return hooks if len(others) < 2 else f"{first} ... {others[-1]}"


def modelless(key: Mapping[str, Any]) -> ModellessKind | None:
    """The kind of a cell's activations, where no language model is loaded for them; None for a language model's."""
    return modelless_kind(key["evaluation"]["data"]["kind"])


def fidelity(key: Mapping[str, Any]) -> str:
    """The metric that is weighed against L0 in a cell: what a language model keeps, or of synthetic activations what
    is explained."""
    return "ce_recovered" if modelless(key) is None else "explained_variance"


def _model(model: Mapping[str, Any], site: Mapping[str, Any]) -> str:
    """Where its weights are, and those of its adapter, or of the second of two; and in how many bits, if fewer."""
    beside = (model.get("adapter"), *(site.get("models") or [None])[1:], model.get("quantize"))
    return " + ".join(filter(None, (str(model.get("path") or DEMO_MODEL), *beside)))


def _hook(site: Mapping[str, Any], exported: str | None) -> str:
    if site.get("across"):
        end = HOOK_OF_KIND.get(str(site["kind"]), str(site["kind"]))
        return " + ".join(at if isinstance(at, str) else f"blocks.{at}.{end}" for at in site["across"])
    if site.get("hook"):
        return str(site["hook"])
    if site.get("layer") is not None:
        kind = str(site["kind"])
        return f"blocks.{site['layer']}.{HOOK_OF_KIND.get(kind, kind)}"
    return exported or f"{site['kind']} of the middle block"


def _in_blocks(output: str, hooks: str) -> str:
    """The hook of `site.output`, which may be a kind in the block of the one that is read; of each of several."""
    if output not in HOOK_OF_KIND:
        return output
    layers = [parse_hook(hook).layer for hook in hooks.split(" + ")]
    return " + ".join(output if layer is None else f"blocks.{layer}.{HOOK_OF_KIND[output]}" for layer in layers)
