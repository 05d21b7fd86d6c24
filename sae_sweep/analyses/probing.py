"""Whether labels can be read from an SAE's latents: probes on the k best of them, and on all, for labelled texts.

Probes are logistic (`probes/logistic.py`), one for each label against the others; numbers are the mean area under the
curve of texts from files that none was fitted on. The control is the same probe on the k best coordinates of the raw
activations, or on all of them. Errors are over draws of the files that are fitted on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sae_sweep.analyses.probes.features import Texts, features, read_texts
from sae_sweep.analyses.probes.logistic import probe_auc
from sae_sweep.analyses.probes.tasks import FEWEST, Task, labelled_task, library_task
from sae_sweep.analyses.session.finished import FinishedSae
from sae_sweep.analyses.session.result import Figure, Number, Result, Series
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.errors import ConfigError
from sae_sweep.host.cores import side_by_side

TRAIN = 0.7
"""The share of files that probes are fitted on."""
ROWS = 32
"""Texts that are read together."""
DRAWS = 100
"""Of the files, until both sides have what can be told apart."""


@dataclass(frozen=True)
class Config:
    """Which texts, and which probes."""

    tasks: list[str]
    labelled: str | None
    k: list[int]
    examples: int
    tokens: int
    reseeds: int
    seed: int


def run(session: Session, saes: Sequence[FinishedSae], config: Config) -> Result:
    """Probe each member and what it reads; numbers of the sweep are those of what members read, and their control is
    labels at random."""
    if config.examples < FEWEST or config.reseeds < 1 or min(config.k, default=1) < 1:
        raise ConfigError(f"analysis.probing: examples must be at least {FEWEST}, reseeds and every k at least 1")
    tasks = [library_task(name, config.examples) for name in config.tasks]
    tasks += [labelled_task(Path(config.labelled))] if config.labelled is not None else []
    members: dict[str, dict[str, Number]] = {sae.label: {} for sae in saes}
    numbers: dict[str, Number] = {}
    done, total = 0, len(tasks) * len(saes)
    for task in tasks:
        for stream in session.streams.opened:
            asked = _Asked(session, stream, task, config)
            for label in stream.saes:
                if not asked.known(label):
                    session.told(f"probing: {task.name}", done, total)
                done += 1
                codes, raw, chance = asked.codes(label), asked.raw(label), asked.chance(label)
                members[label] |= _numbers(task, codes, raw, config.k)
                numbers |= _numbers(task, raw, chance, config.k, f"{asked.named_site(label)} raw ")
    return Result(numbers, members, _figure(members, tasks, config.k))


class _Asked:
    """One task of the members of one stream. Texts are read when the first needs them, and raw activations probed once
    for all members that read the same."""

    def __init__(self, session: Session, stream: Stream, task: Task, config: Config) -> None:
        self._session, self._stream, self._task, self._config = session, stream, task, config
        self._number = session.streams.opened.index(stream)

    @cached_property
    def _texts(self) -> list[Texts]:
        saes = self._stream.saes.values()
        hooks = tuple(dict.fromkeys(hook for one in saes for hook in (*one.hooks, one.reads) if hook))
        return read_texts(self._stream, self._task, hooks, self._config.tokens, ROWS)

    def site(self, label: str) -> str:
        """What a member reads."""
        one = self._stream.saes[label]
        return one.reads or "+".join(one.hooks)

    def named_site(self, label: str) -> str:
        """The same, as numbers of the sweep have it."""
        where = f" of stream {self._number}" if len(self._session.streams.opened) > 1 else ""
        return f"{self.site(label)}{where}"

    def known(self, label: str) -> bool:
        """Whether a member was probed before the analysis was killed."""
        return self._key(label) in self._session.kept

    def codes(self, label: str) -> Tensor:
        """[K + 1, reseeds]: AUCs of probes on k latents, and on all."""
        return self._once(label, lambda: self._aucs(features(self._stream.saes[label], self._texts)[0]))

    def raw(self, label: str) -> Tensor:
        """The same of the activations that it reads."""
        return self._once(f"raw {self.site(label)}", lambda: self._aucs(self._raw(label)))

    def chance(self, label: str) -> Tensor:
        """The same of these with labels at random."""
        return self._once(f"chance {self.site(label)}", lambda: self._aucs(self._raw(label), at_random=True))

    def _raw(self, label: str) -> Tensor:
        return features(self._stream.saes[label], self._texts)[1]

    def _once(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        return self._session.kept.once(self._key(name), make)

    def _key(self, name: str) -> str:
        return f"{self._task.name}/{self._number}/{name}"

    def _aucs(self, x_RF: Tensor, at_random: bool = False) -> Tensor:
        config = self._config
        numbers = {label: number for number, label in enumerate(self._task.labels)}
        labels_R = np.array([numbers[one.label] for one in self._task.examples])
        wanted: list[int | None] = [*config.k, None]

        def drawn(reseed: int) -> list[float]:
            generator = np.random.default_rng([config.seed, reseed])
            train_R = torch.from_numpy(split(self._task, generator))
            told_R = torch.from_numpy(generator.permutation(labels_R) if at_random else labels_R)
            return [mean_auc(x_RF, told_R, train_R, k) for k in wanted]

        found = list(side_by_side(drawn, range(config.reseeds), torch.device("cpu")))
        return torch.tensor(found, dtype=torch.float64).T


def split(task: Task, generator: np.random.Generator) -> NDArray[np.bool_]:
    """[R] bool: the texts that probes are fitted on. Those of one file are all or none. Raises ConfigError where no
    label is told from others on both sides."""
    sources = sorted({one.source for one in task.examples})
    labels_R = np.array([one.label for one in task.examples])
    for _ in range(DRAWS):
        chosen = generator.permutation(len(sources))[: max(1, round(TRAIN * len(sources)))]
        fitted_on = {sources[i] for i in chosen}
        train_R = np.array([one.source in fitted_on for one in task.examples])
        sides = [set(labels_R[train_R]), set(labels_R[~train_R])]
        if min(map(len, sides)) > 1 and sides[0] & sides[1]:
            return train_R
    raise ConfigError(
        f"analysis.probing: texts of one source are all fitted on or none, and those of {task.name} are of"
        f" {len(sources)}, none of which leave two labels on both sides; give each label texts of more sources"
    )


def mean_auc(x_RF: Tensor, labels_R: Tensor, train_R: Tensor, k: int | None) -> float:
    """The mean over labels that both sides of the split have; labels at random may have none there, which is chance."""
    found = []
    for label in labels_R.unique():
        y_R = (labels_R == label).double()
        if 0 < y_R[train_R].sum() < train_R.sum() and 0 < y_R[~train_R].sum() < (~train_R).sum():
            found.append(probe_auc(x_RF[train_R], y_R[train_R], x_RF[~train_R], y_R[~train_R], k))
    return sum(found) / len(found) if found else 0.5


def _numbers(task: Task, aucs: Tensor, control: Tensor, k: Sequence[int], of: str = "") -> dict[str, Number]:
    names = [f"{task.name} {of}{each}" for each in (*(f"k{each}" for each in k), "all")]
    return {name: _number(aucs[i], len(task.examples), control[i]) for i, name in enumerate(names)}


def _number(values_S: Tensor, n: int, control_S: Tensor) -> Number:
    error = values_S.std().item() / sqrt(len(values_S)) if len(values_S) > 1 else None
    return Number(values_S.mean().item(), error, n, control_S.mean().item())


def _figure(members: dict[str, dict[str, Number]], tasks: Sequence[Task], k: Sequence[int]) -> Figure:
    """Of each member the mean over tasks at each k, and of raw activations."""
    x = [*map(str, k), "all"]

    def means(found: dict[str, Number], control: bool) -> list[float | None]:
        rows = [[found[f"{task.name} {'k' * (at != 'all')}{at}"] for task in tasks] for at in x]
        return [float(np.mean([one.control if control else one.value for one in row])) if row else None for row in rows]

    series = []
    for label, found in members.items():
        series.append(Series(label, x, means(found, control=False)))
        series.append(Series(f"raw, as {label} reads", x, means(found, control=True), style="dashed"))
    return Figure("Probes on the k best latents, over all tasks", "k", "area under the curve", series)
