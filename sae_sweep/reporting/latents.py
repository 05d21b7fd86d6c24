"""What a member's latents fire on, as the analysis `latents` leaves it, made small for the report's pages."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweep.folder import names
from sae_sweep.host.json_files import read_object

FILE = "latents.json"
STRENGTHS = 9
"""Activations are digits: so much is the largest of a latent in what is shown of it."""
TOP, EACH = 3, 2
"""Contexts that are shown: of the rows that a latent is largest on, and of each quantile and at random."""
Context = Mapping[str, Any]


def has_latents(folder: Path) -> bool:
    """Whether somebody has looked."""
    return (folder / names.ANALYSES / FILE).is_file()


def read_latents(folder: Path, room: int) -> dict[str, Any] | None:
    """`told`, how they were chosen, and `latents`, the first that take at most so many bytes as JSON; None where
    nobody has looked, or not in words that are known."""
    latents = []
    try:
        found = read_object(folder / names.ANALYSES / FILE)
        for one in found["details"]:
            latents.append(_latent(one))
            room -= len(json.dumps(latents[-1], ensure_ascii=False).encode())
            if room < 0:
                latents.pop()
                break
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    count = len(latents) if room >= 0 else f"{len(latents)} of {len(found['details'])}"
    told = f"{count} latents, drawn at random among those that fire on held-out tokens and never picked"
    return {"told": f"{told} (seed {found.get('config', {}).get('seed', 0)}).", "latents": latents}


def _latent(one: Mapping[str, Any]) -> dict[str, Any]:
    parts = list(_parts(one))
    largest = max((max(c["activations"]) for _, contexts in parts for c in contexts), default=0.0) or 1.0
    return {
        "id": int(one["latent"]),
        "density": float(one["density"]),
        "quantiles": [{"name": name, "contexts": [_context(c, largest) for c in some]} for name, some in parts],
        "effects": {
            "positive": [[each["token"], _short(each["by"])] for each in one["raises"]],
            "negative": [[each["token"], _short(each["by"])] for each in one["lowers"]],
        },
        "neighbours": [[int(each["latent"]), _short(each["cosine"])] for each in one["near"]],
    }


def _parts(one: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[Context]]]:
    """What is shown, each under its name; the largest first."""
    count = len(one["quantiles"])
    yield "Largest", one["top"][:TOP]
    for number, contexts in reversed(list(enumerate(one["quantiles"]))):
        share = f"{100 * number // count} to {100 * (number + 1) // count} %"
        yield f"Activations from {share} of all above 0, by rank", contexts[:EACH]
    yield "Anywhere it fires", one["random"][:EACH]


def _context(context: Context, largest: float) -> dict[str, Any]:
    activations, at = context["activations"], int(context["position"])
    digits = (max(1, min(STRENGTHS, round(STRENGTHS * value / largest))) if value > 0 else 0 for value in activations)
    return {
        "tokens": list(context["tokens"]),
        "strengths": "".join(map(str, digits)),
        "at": at,
        "activation": _short(activations[at]),
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")
