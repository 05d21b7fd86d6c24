"""What members cost at positions that training never had, beside the same tokens in rows as long as training's."""

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from sae_sweep.analyses.longer.rows import Longer
from sae_sweep.analyses.session.batch import CLEAN, Batch
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.result import Number
from sae_sweep.analyses.session.session import Session, Stream
from sae_sweep.errors import ConfigError
from sae_sweep.model.facts import longest_of

WHAT = ("kl", "ce", "clean", "mse", "l0")
ALL = "beyond"


class Beyond:
    """One stream's."""

    def __init__(self, session: Session, stream: Stream, context: int, step: int) -> None:
        """Raises ConfigError for rows that cannot be had."""
        self._session, self._stream, self._step = session, stream, step
        short_RT = stream.evaluator.tokens_RT
        _check(stream, short_RT, context)
        self.rows = Longer.of(short_RT, context, bos=stream.bos)
        self._means = {label: Means(session.kept, f"beyond/{label}", len(self.rows.tokens_RT)) for label in stream.saes}

    def take(self, batch: Batch) -> None:
        """Take in a batch of held-out rows: what tokens cost there that are beyond in the longer rows, and do not end
        one, where they have no target."""
        for label in batch.saes:
            sequence_N, position_N, value_N = at_targets(batch, label)
            row_N, place_N = self.rows.place(sequence_N, position_N)
            here_N = (place_N >= self.rows.short) & (place_N < self.rows.context - 1)
            here_N &= (row_N < len(self.rows.tokens_RT)) & (position_N > 0)
            self._add(label, "short", (row_N[here_N], place_N[here_N]), {k: v[here_N] for k, v in value_N.items()})

    def read(self) -> None:
        """Read the longer rows."""
        stream, rows = self._stream, self.rows
        at_once = max(1, stream.evaluator.rows_per_forward * rows.short // rows.context)
        name = f"positions: rows of {rows.context}, stream {self._session.streams.opened.index(stream)}"
        for batch in self._session.over(stream, rows.tokens_RT, at_once, name):
            count = len(batch.rows.clean.tokens_RT)
            beyond_RT = rows.beyond_RT(range(batch.first, batch.first + count)).to(stream.model.device)
            for label in batch.saes:
                sequence_N, position_N, value_N = at_targets(batch, label)
                here_N = beyond_RT[sequence_N - batch.first, position_N]
                where = sequence_N[here_N], position_N[here_N]
                self._add(label, "long", where, {k: v[here_N] for k, v in value_N.items()})

    def _add(self, label: str, which: str, where: tuple[Tensor, Tensor], value_N: Mapping[str, Tensor]) -> None:
        row_N, place_N = where
        bin_N = (place_N - self.rows.short) // self._step
        for name, here_N in [(ALL, torch.ones_like(bin_N, dtype=torch.bool)), *self._each(bin_N)]:
            for what in WHAT:
                self._means[label].add(f"{which}_{what}_{name}", row_N[here_N], value_N[what][here_N])

    def _each(self, bin_N: Tensor) -> list[tuple[str, Tensor]]:
        return [(self._name(int(each)), bin_N == each) for each in bin_N.unique()]

    def _name(self, number: int) -> str:
        first = self.rows.short + number * self._step
        return f"{first}_{min(first + self._step, self.rows.context) - 1}"

    @property
    def firsts(self) -> list[int]:
        """The first position of each bin."""
        return list(range(self.rows.short, self.rows.context, self._step))

    @property
    def names(self) -> list[str]:
        """What each bin is called."""
        return [self._name(number) for number in range(ceil((self.rows.context - self.rows.short) / self._step))]

    def numbers(self, label: str) -> dict[str, Number]:
        """Those of bins that have tokens, and of all positions beyond. The control is the same tokens in shorter rows;
        of CE the clean pass at the same positions."""
        own, found = self._means[label], dict[str, Number]()
        for name in (*self.names, ALL):
            for what in ("kl", "mse", "l0"):
                found[f"{what}_{name}"] = own.mean(f"long_{what}_{name}", own.mean(f"short_{what}_{name}").value)
            found[f"ce_{name}"] = own.mean(f"long_ce_{name}", own.mean(f"long_clean_{name}").value)
        found[f"ce_clean_{ALL}"] = own.mean(f"long_clean_{ALL}", own.mean(f"short_clean_{ALL}").value)
        for what in ("kl", "mse", "l0"):
            ratio = own.of_means(f"long_{what}_{ALL}", f"short_{what}_{ALL}", 1.0)
            if ratio is not None:
                found[f"{what}_{ALL}_over_short"] = ratio
        return {key: number for key, number in found.items() if number.n}


def at_targets(batch: Batch, label: str) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Row and position of each target, and what a member costs there; of a crosscoder the mean over its sites."""
    lost, sites = batch.lost_by(label), len(batch.saes[label].hooks)
    counts_N = batch.targets(label)[batch.replaced(label)]
    codes, y_hat_ND = batch.coded(label)
    error_N = (batch.written(label, batch.replaced(label)) - y_hat_ND).double().square().sum(1)[counts_N]
    passes = {"kl": lost.kl[label], "ce": lost.ce[label], "clean": lost.ce[CLEAN]}
    found = {name: each.view(sites, -1).mean(0) for name, each in passes.items()}
    n = len(error_N)
    return lost.sequence_N[:n], lost.position_N[:n], found | {"mse": error_N, "l0": codes.offsets.diff()[counts_N]}


def _check(stream: Stream, short_RT: Tensor, context: int) -> None:
    key, short = f"analysis.positions.context={context}", short_RT.shape[1]
    if context <= short:
        raise ConfigError(f"{key} must be above data.context={short}, or null")
    said: Any = stream.model.module.config
    longest = longest_of(said.to_dict())
    if longest is not None and context > longest:
        raise ConfigError(f"{key}: {stream.model.config.name} reads rows of at most {longest} tokens; lower it")
    held_out = (short - stream.bos) * len(short_RT) + stream.bos
    if held_out < context:
        raise ConfigError(f"{key}: the held-out rows have {held_out} tokens together; lower it")
