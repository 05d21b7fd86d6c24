"""Latents to look at, drawn at random among those that fire and never picked: where they fire, and what they do.

Each member's file has, of each: the rows that it is largest on, places from each quantile of its activations, places at
random, how often it fires, the logits that it raises and lowers, and the latents that it is near. Beside that file are
`latents/neuronpedia.json`, in Neuronpedia's words, and `latents/questions.jsonl` for an automatic interpreter, whose
answers are read back with `answers` and scored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any

import torch

from sae_sweep.analyses.contexts.effects import Weighted, logit_effects, neighbours
from sae_sweep.analyses.contexts.interpreter import (
    Question,
    Text,
    as_lines,
    explain,
    read_answers,
    score,
    score_questions,
)
from sae_sweep.analyses.contexts.places import NOTHING, Place, Places, best_of_rows, dense
from sae_sweep.analyses.session.batch import Batch
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.readings import Reading
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session
from sae_sweep.errors import ConfigError
from sae_sweep.folder import names

POOL = 4
"""Places of a fair sample for each that is shown: quantiles are of so many more."""


@dataclass(frozen=True)
class Config:
    """How many latents, and what is shown of them."""

    n: int
    contexts: int
    quantiles: int
    width: int
    tokens: int
    answers: str | None
    seed: int


class _Seen:
    """What is seen of one member's latents."""

    def __init__(self, session: Session, sae: FinishedSae, config: Config) -> None:
        alive = sae.alive_F.nonzero()[:, 0]
        order = torch.randperm(len(alive), generator=torch.Generator().manual_seed(config.seed))
        self.latents_L = alive[order[: config.n]].sort().values
        L, label = len(self.latents_L), sae.label
        self.top = Places(session.kept, f"top/{label}", (L, config.contexts), config.width)
        pool = POOL * config.contexts * config.quantiles
        self.fair = Places(session.kept, f"fair/{label}", (L, pool), config.width)
        self.silent = Places(session.kept, f"silent/{label}", (L, config.contexts), config.width)
        self.fired = session.kept.zeros(f"fired/{label}", L)
        self.counted = session.kept.zeros(f"counted/{label}", 1)

    def add(self, batch: Batch, label: str, seed: int) -> None:
        """Take in a batch."""
        if not len(self.latents_L):
            return
        counted_RT = batch.counted(label).cpu()
        f_LRT = dense(batch.codes(label), counted_RT, self.latents_L)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch.first)
        chance_LRT = torch.rand(f_LRT.shape, generator=generator)
        self.top.add(best_of_rows(f_LRT), f_LRT, batch.first)
        self.fair.add(torch.where(f_LRT > 0, chance_LRT, NOTHING), f_LRT, batch.first)
        silent_LR1 = (f_LRT == 0).all(2, keepdim=True) & counted_RT
        self.silent.add(torch.where(silent_LR1, chance_LRT, NOTHING), f_LRT, batch.first)
        self.fired += (f_LRT > 0).sum((1, 2))
        self.counted += counted_RT.sum()


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Reading[Batch]:
    """Look at latents of each member, and score answers where there are some."""
    if min(config.n, config.contexts, config.quantiles) < 1 or config.width < 0:
        raise ConfigError("analysis.latents: n, contexts and quantiles must be at least 1, width at least 0")
    answers = {} if config.answers is None else read_answers(Path(config.answers))
    seen = {sae.label: _Seen(session, sae, config) for sae in saes}
    while (batch := (yield)) is not None:
        for label in batch.saes:
            seen[label].add(batch, label, config.seed)
    members, details, files = {}, {}, dict[str, str]()
    for sae in saes:
        shown = _Shown(session, sae, seen[sae.label], config)
        details[sae.label] = [shown.of(number) for number in range(len(shown.latents))]
        questions, scored = shown.questions(answers)
        members[sae.label] = {**shown.numbers(), **scored}
        folder = f"{sae.label}/{names.ANALYSES}/latents"
        files[f"{folder}/questions.jsonl"] = as_lines(questions)
        files[f"{folder}/neuronpedia.json"] = json.dumps({"features": shown.neuronpedia(details[sae.label])}, indent=1)
    return Result(members=members, figure=_figure(members), details=details, files=files)


class _Shown:
    """One member's latents, for people and programs."""

    def __init__(self, session: Session, sae: FinishedSae, seen: _Seen, config: Config) -> None:
        self._session, self._sae, self._seen, self._config = session, sae, seen, config
        stream = session.stream(sae.label)
        self._one = stream.saes[sae.label]
        self._model = stream.evaluator.model_at(self._one.hooks[-1])
        self._tokens_RT = stream.evaluator.tokens_RT
        self.latents: list[int] = seen.latents_L.tolist()
        self._near = neighbours(self._one, seen.latents_L, config.tokens) if self.latents else []

    def of(self, number: int) -> dict[str, Any]:
        """All that is shown of one of them, in JSON's types."""
        config, seen = self._config, self._seen
        latent = self.latents[number]
        row_D = self._one.sae.tensors["W_dec"][latent].chunk(len(self._one.hooks))[
            -1
        ]  # of a crosscoder the last site's
        raised, lowered = logit_effects(self._model, row_D, config.tokens) or ([], [])
        return {
            "latent": latent,
            "density": self._density(number),
            "top": [self._context(place) for place in self._of(seen.top, number)],
            "quantiles": [[self._context(place) for place in part] for part in self._quantiles(number)],
            "random": [self._context(place) for place in self._of(seen.fair, number)[: config.contexts]],
            "raises": self._named(raised),
            "lowers": self._named(lowered),
            "near": [{"latent": other, "cosine": cosine} for other, cosine in self._near[number]],
        }

    def questions(self, answers: Mapping[str, Any]) -> tuple[list[Question], dict[str, Number]]:
        """What is to be asked now, and the scores of what was answered."""
        asked, found = list[Question](), dict[str, list[float]]()
        for number, latent in enumerate(self.latents):
            name = f"{self._sae.label} {latent}"
            first = explain(name, [self._text(place) for place in self._of(self._seen.top, number)])
            asked.append(first)
            if first.id in answers:
                fires = [self._text(place) for place in self._of(self._seen.fair, number)[: self._config.contexts]]
                silent = [self._text(place) for place in self._of(self._seen.silent, number)]
                later = score_questions(name, str(answers[first.id]), fires, silent, str(self._config.seed))
                asked += later
                for question in later:
                    scored = score(question, answers)
                    if scored is not None:
                        found.setdefault(question.id.rpartition(" ")[2], []).append(scored)
        return asked, {kind: mean_of(values, 0.5) for kind, values in found.items()}

    def numbers(self) -> dict[str, Number]:
        """How often these latents fire, beside all that do; and how near the nearest other is, beside random rows."""
        alive_F = self._sae.alive_F
        rows_FD = torch.randn(self._one.sae.tensors["W_dec"].shape, generator=torch.Generator().manual_seed(0))
        rows_FD = torch.nn.functional.normalize(rows_FD, dim=1)
        chance = [(rows_FD[i] @ rows_FD.T).topk(2).values[1].item() for i in range(min(len(rows_FD), 64))]
        nearest = [near[0][1] for near in self._near if near]
        density = [self._density(number) for number in range(len(self.latents))]
        all_alive = self._sae.frequency_F[alive_F].mean().item() if alive_F.any() else 0.0
        return {"density": mean_of(density, all_alive), "nearest": mean_of(nearest, sum(chance) / len(chance))}

    def neuronpedia(self, shown: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The same in the words of Neuronpedia's features."""
        layer = f"{self._sae.member.site.layer}-{self._sae.label}"
        return [
            {
                "modelId": self._sae.member.config.model.name,
                "layer": layer,
                "index": str(one["latent"]),
                "frac_nonzero": one["density"],
                "pos_str": [each["token"] for each in one["raises"]],
                "pos_values": [each["by"] for each in one["raises"]],
                "neg_str": [each["token"] for each in one["lowers"]],
                "neg_values": [each["by"] for each in one["lowers"]],
                "topkCosSimIndices": [each["latent"] for each in one["near"]],
                "topkCosSimValues": [each["cosine"] for each in one["near"]],
                "activations": [_activation(context) for context in one["top"]],
            }
            for one in shown
        ]

    def _of(self, places: Places, number: int) -> list[Place]:
        return places.of(number, self._tokens_RT.shape[1])

    def _quantiles(self, number: int) -> list[list[Place]]:
        return quantiles(self._of(self._seen.fair, number), self._config.quantiles, self._config.contexts)

    def _density(self, number: int) -> float:
        return float(self._seen.fired[number] / self._seen.counted.clamp(min=1)[0])

    def _context(self, place: Place) -> dict[str, Any]:
        text = self._text(place)
        return {
            "tokens": list(text.tokens),
            "activations": [round(value, 4) for value in text.activations],
            "position": place.position - place.first,
        }

    def _text(self, place: Place) -> Text:
        ids = self._tokens_RT[place.row, place.first : place.first + len(place.window)]
        ids = torch.where(ids < 0, ~ids, ids)
        return Text(self._session.strings(self._sae.label, ids), place.window)

    def _named(self, effects: Weighted) -> list[dict[str, Any]]:
        ids = torch.tensor([token for token, _ in effects], dtype=torch.int64)
        strings = self._session.strings(self._sae.label, ids)
        return [{"token": token, "by": by} for token, (_, by) in zip(strings, effects, strict=True)]


def quantiles(places: Sequence[Place], parts: int, count: int) -> list[list[Place]]:
    """Places in the order that they were drawn in, parted by their activations: of each part, the lowest first, those
    that were drawn first, in that order."""
    rising = sorted(range(len(places)), key=lambda i: places[i].activation)
    parted = [rising[len(places) * q // parts : len(places) * (q + 1) // parts] for q in range(parts)]
    return [[places[i] for i in sorted(part)[:count]] for part in parted]


def mean_of(values: Sequence[float], control: float) -> Number:
    """The mean over latents, with its error."""
    n, tensor = len(values), torch.tensor(values, dtype=torch.float64)
    return Number(tensor.mean().item() if n else 0.0, tensor.std().item() / sqrt(n) if n > 1 else None, n, control)


def _activation(context: Mapping[str, Any]) -> dict[str, Any]:
    values = context["activations"]
    return {
        "tokens": context["tokens"],
        "values": values,
        "maxValue": max(values),
        "maxValueTokenIndex": values.index(max(values)),
    }


def _figure(members: Mapping[str, Mapping[str, Number]]) -> Figure:
    """How near the drawn latents are to their nearest, of each member."""
    found = [numbers["nearest"] for numbers in members.values()]
    values, errors = [one.value for one in found], [one.standard_error for one in found]
    series = [
        Series("latents drawn", list(members), values, errors, "bars"),
        Series("random directions", list(members), [one.control for one in found], style="bars"),
    ]
    return Figure("The largest cosine of a latent's decoder row with another's", "member", "cosine", series)
