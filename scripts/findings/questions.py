"""The questions of docs/measured.md, each asked of a finished sweep of `+experiment=measured`."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from scripts.claims import Point, points_of
from scripts.findings.numbers import Better, Finding, Row, Rows, over_seeds

L0S = (8, 16, 32)
DENSE = 32
"""The L0 of the members that are cut to a smaller one."""
MIDDLE = 16
K = (1, 5, 20)
TASKS = ("construct", "prose", "identifier")
CONTROLS = ("frozen_decoder", "kmeans", "pca", "random")
LOCAL, TWIN, END_TO_END, TOKENIZED = "topk", "topk, lr of e2e", "topk e2e", "topk_tokenized"
END_TO_END_LR = 3e-3
KL = "KL of the model's predictions, nats"
MEASURES: tuple[tuple[str, str, Better], ...] = (
    ("kl", KL, "lower"),
    ("ce_recovered", "CE recovered", "higher"),
    ("fvu", "share of variance unexplained", "lower"),
)
"""Of metrics.json: the key, what it is, and which way is better."""


class Swept:
    """A finished sweep: its members, and what analyses found of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._points = folder, points_of(folder)

    def members(self, kind: str, *l0s: float) -> list[Point]:
        """The points of one kind of member, by seed, at these L0, or at all."""
        return [
            point for l0 in l0s or L0S for point in self._points if _kind(point) == kind and point["knob_value"] == l0
        ]

    def labels(self, *architectures: str, l0s: Sequence[float] = ()) -> list[str]:
        """The names of members."""
        return [point["member"] for each in architectures for point in self.members(each, *l0s)]

    def result(self, analysis: str) -> dict[str, Any]:
        """What an analysis wrote. Raises FileNotFoundError where it was not asked, or could not be."""
        file = self.folder / "analyses" / f"{analysis}.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


def _kind(point: Point) -> str:
    """Its architecture; the twins of end-to-end members are told apart by their learning rate."""
    twin = point["architecture"] == "topk" and point["lr"] == END_TO_END_LR
    return TWIN if twin else str(point["architecture"])


@dataclass(frozen=True)
class Question:
    """One section of the page."""

    find: Callable[[Swept], dict[str, Finding]]
    """Its tables, by name; the first has the figure."""
    analysis: str | None = None
    keys: tuple[str, ...] = ()
    """Of `analysis.<name>.*`."""
    asked_of: Callable[[Swept], list[str]] = lambda swept: []


def _values(result: Mapping[str, Any], points: Sequence[Point], number: str, what: str = "value") -> list[float]:
    return [result["members"][point["member"]][number][what] for point in points]


def perturbation(swept: Swept) -> dict[str, Finding]:
    """The SAE's error against random ones of its length."""
    result, rows = swept.result("perturbation"), Rows(KL, "L0", "lower")
    names = {"kl_sae": "", "kl_random_error": ", random error", "kl_covariance": ", random as activations are"}
    for architecture in ("topk", "standard"):
        for l0 in L0S:
            points = swept.members(architecture, l0)
            found = [
                rows.add(over_seeds(f"{architecture}{said}", l0, _values(result, points, number)))
                for number, said in names.items()
            ]
            rows.compare(found[0], found[1])
            rows.compare(found[0], found[2])
    return {"perturbation": rows.finding}


def topn(swept: Swept) -> dict[str, Finding]:
    """The n largest latents of a dense member against members that were trained at that L0."""
    result, rows = swept.result("inference_topn"), Rows(KL, "L0", "lower")
    trained = {
        l0: rows.add(over_seeds("trained at that L0", l0, _values(result, swept.members(LOCAL, l0), "kl")))
        for l0 in L0S
    }
    dense = swept.members(LOCAL, DENSE)
    for l0 in L0S[:-1]:
        largest = rows.add(over_seeds(f"of L0 {DENSE} the largest", l0, _values(result, dense, f"kl_n{l0}")))
        chance = _values(result, dense, f"kl_n{l0}", "control")
        rows.add(over_seeds(f"of L0 {DENSE} at random", l0, chance))
        rows.compare(largest, trained[l0])
    return {"inference_topn": rows.finding}


def controls(swept: Swept) -> dict[str, Finding]:
    """SAEs and controls at one L0."""
    found = {}
    for key, y, better in MEASURES[1:]:
        rows = Rows(y, "at L0", better)
        made = {
            kind: rows.add(_row(kind, MIDDLE, swept.members(kind, MIDDLE), key))
            for kind in ("topk", "standard", *CONTROLS)
        }
        for trained in ("topk", "standard"):
            for control in CONTROLS:
                rows.compare(made[trained], made[control])
        found[f"controls_{key}"] = rows.finding
    return found


def _row(series: str, x: float | str, points: Sequence[Point], key: str) -> Row:
    if len(points) == 1:
        return Row(series, x, points[0][key], points[0].get(f"{key}_se"), 1)
    return over_seeds(series, x, [point[key] for point in points])


def pruning(swept: Swept) -> dict[str, Finding]:
    """Members pruned from their densest latent on, against members that were trained with more of the penalty."""
    result, rows = swept.result("prune_dense"), Rows(KL, "L0", "lower")
    over = Rows("KL over that of members trained at the same L0", "L0", "lower")
    for l0 in L0S:
        rows.add(over_seeds("trained at that L0", l0, _values(result, swept.members("standard", l0), "kl")))
    members = [result["members"][point["member"]] for point in swept.members("standard", DENSE)]
    for place, l0 in enumerate(reversed(L0S[:-1])):  # targets fall
        at = [[name for name in own if name.startswith("kl_at_") and "_over_" not in name][place] for own in members]
        pruned = [own[name] for own, name in zip(members, at, strict=True)]
        rows.add(over_seeds(f"of L0 {DENSE} without the densest", l0, [one["value"] for one in pruned]))
        rows.add(over_seeds(f"of L0 {DENSE} without some at random", l0, [one["control"] for one in pruned]))
        ratios = [own[f"{name}_over_trained"]["value"] for own, name in zip(members, at, strict=True)]
        ratio = over.add(over_seeds(f"of L0 {DENSE} without the densest", l0, ratios))
        over.compare(ratio, over.add(Row("trained at that L0", l0, 1.0, 0.0, len(members))))
    return {"prune_dense": rows.finding, "prune_dense_over": over.finding}


def seeds(swept: Swept) -> dict[str, Finding]:
    """How alike members are that differ in their seed."""
    result, rows = swept.result("matching"), Rows("mean cosine of assigned decoder rows", "L0", "higher", "more alike")
    kinds = (END_TO_END, TWIN, LOCAL, "standard", TOKENIZED, "kmeans")
    made = {
        (kind, l0): rows.add(_alike(result, kind, l0, points))
        for kind in kinds
        for l0 in L0S
        if (points := swept.members(kind, l0)) and _family(points) in result["numbers"]
    }
    least = min(result["numbers"][_family(swept.members(kind, l0))]["control"] for kind, l0 in made)
    rows.add(Row("by chance", 8, least, None, 1))
    rows.compare(made[TWIN, L0S[0]], made[END_TO_END, L0S[0]])
    kl = Rows(KL, "L0", "lower")
    kl.compare(*(kl.add(_row(kind, L0S[0], swept.members(kind, L0S[0]), "kl")) for kind in (TWIN, END_TO_END)))
    return {"matching": rows.finding, "matching_kl": kl.finding}


def _family(points: Sequence[Point]) -> str:
    return f"assigned over seeds of {points[0]['member']}"


def _alike(result: Mapping[str, Any], kind: str, l0: float, points: Sequence[Point]) -> Row:
    number = result["numbers"][_family(points)]
    return Row(kind, l0, number["value"], number["standard_error"], len(points))


def tokenized(swept: Swept) -> dict[str, Finding]:
    """Who tells the token from the activation; and what a table of tokens is worth to an SAE."""
    result, rows = swept.result("tokens"), Rows("accuracy of the last token's detector", "table", "higher")
    with_table, without = swept.members(TOKENIZED, MIDDLE), swept.members(LOCAL, MIDDLE)
    lookup = rows.add(_detector(result, with_table))
    for name, said in (("residual", "less the mean"), ("unigram", "as it is")):
        number = result["members"][with_table[0]["member"]][f"detector_{name}"]
        error = number["standard_error"]
        rows.compare(lookup, rows.add(Row("the token by itself", said, number["value"], error, 1)))
    found = {"tokens": rows.finding}
    worth = Rows("share of latents near a token's direction", "L0", "lower")
    near = [
        worth.add(over_seeds(kind, MIDDLE, _values(result, points, "latents_near_residual")))
        for kind, points in ((TOKENIZED, with_table), (LOCAL, without))
    ]
    worth.compare(*near)
    found["tokens_near"] = worth.finding
    for key, y, better in MEASURES:
        made = Rows(y, "L0", better)
        made.compare(
            *(made.add(_row(kind, MIDDLE, points, key)) for kind, points in ((TOKENIZED, with_table), (LOCAL, without)))
        )
        found[f"tokens_{key}"] = made.finding
    return found


def _detector(result: Mapping[str, Any], points: Sequence[Point]) -> Row:
    """Of an SAE's own rows: seeds share the few held-out rows, whose error is the larger one."""
    row = over_seeds("tokenized SAE", "its own rows", _values(result, points, "detector_lookup"))
    of_rows = mean(_values(result, points, "detector_lookup", "standard_error"))
    return replace(row, error=max(row.error or 0.0, of_rows))


def probing(swept: Swept) -> dict[str, Finding]:
    """Probes on latents, and on the activations themselves."""
    result, rows = swept.result("probing"), Rows("area under the curve, mean of three tasks", "k", "higher")
    at = [*(f"k{k}" for k in K), "all"]
    kinds = ("topk", "standard", "frozen_decoder", "kmeans", "random")
    for x in at:
        raw = rows.add(_raw(result, x))
        for kind in kinds:
            own = [result["members"][point["member"]] for point in swept.members(kind, MIDDLE)]
            row = over_seeds(kind, x, [mean(one[f"{task} {x}"]["value"] for task in TASKS) for one in own])
            rows.compare(rows.add(row), raw)
    return {"probing": rows.finding}


def _raw(result: Mapping[str, Any], x: str) -> Row:
    """Of raw activations: the mean over tasks, whose errors are over draws of the files that are fitted on."""
    end = f" raw {x}"
    own = [number for name, number in result["numbers"].items() if name.endswith(end)]
    error = sum(number["standard_error"] ** 2 for number in own) ** 0.5 / len(own)
    return Row("raw activations", x, mean(number["value"] for number in own), error, 1)


QUESTIONS: Mapping[str, Question] = {
    "perturbation": Question(
        perturbation,
        "perturbation",
        ("kinds=[sae,random_error,covariance]", "cosines=[]"),
        lambda swept: swept.labels("topk", "standard"),
    ),
    "inference_topn": Question(topn, "inference_topn", ("n=[8,16]",), lambda swept: swept.labels("topk")),
    "controls": Question(controls),
    "prune_dense": Question(pruning, "prune_dense", (), lambda swept: swept.labels("standard")),
    "seeds": Question(
        seeds,
        "matching",
        (),
        lambda swept: [
            *swept.labels(LOCAL, "standard"),
            *swept.labels(TWIN, END_TO_END, TOKENIZED),
            *swept.labels("kmeans", l0s=(MIDDLE,)),
        ],
    ),
    "tokens": Question(tokenized, "tokens", (), lambda swept: swept.labels(TOKENIZED, LOCAL, l0s=(MIDDLE,))),
    "probing": Question(
        probing,
        "probing",
        (f"k=[{','.join(map(str, K))}]",),
        lambda swept: swept.labels("topk", "standard", "frozen_decoder", "kmeans", "random", l0s=(MIDDLE,)),
    ),
}
