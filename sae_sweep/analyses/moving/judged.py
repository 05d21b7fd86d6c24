"""What an SAE is worth somewhere: sums over each held-out sequence, and the numbers that are ratios of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from sae_sweep.analyses.session.batch import CLEAN, Batch, Lost
from sae_sweep.analyses.session.means import Means
from sae_sweep.analyses.session.result import Number
from sae_sweep.evaluation.jackknife import ratio_standard_error
from sae_sweep.evaluation.rows import read_rows

RATIOS = {
    "ce_recovered": ("kept", "range", "targets"),
    "explained_variance": ("explained", "variance", "tokens"),
    "kl": ("kl", "targets", "targets"),
    "l0": ("l0", "tokens", "tokens"),
}
"""By number: the sums that it is a ratio of, and what it is taken over."""


@dataclass(frozen=True)
class Judged:
    """Sums [R] by name."""

    sums: Mapping[str, Tensor]

    @classmethod
    def of_means(cls, means: Means) -> "Judged":
        """What `add` has taken in."""
        both = {name: means.per_sequence(name) for name in ("rise", "range", "kl", "error", "variance", "l0")}
        sums = {name: sum_R.cpu() for name, (sum_R, _) in both.items()}
        counts = {"targets": both["kl"][1].cpu(), "tokens": both["l0"][1].cpu()}
        return cls(_with_shares({**sums, **counts}))

    @classmethod
    def of_rows(cls, folder: Path, there: "Judged") -> "Judged | None":
        """What a member was judged to be, where activations vary as they do there; None where its rows are lost."""
        rows = read_rows(folder)
        if rows is None:
            return None
        own = rows.sums
        found = {"rise": own["ce"] - own["ce_clean"], "range": own["ce_zero"] - own["ce_clean"]}
        found |= {"error": own["squared_error"], "variance": there.sums["variance"]}
        return cls(_with_shares({**found, **{name: own[name] for name in ("kl", "l0", "targets", "tokens")}}))

    def numbers(self, against: "Judged | None" = None) -> dict[str, Number]:
        """Each with that of another for its control."""
        controls = {} if against is None else {name: one.value for name, one in against.numbers().items()}
        found = {}
        for name, (above, below, over) in RATIOS.items():
            above_R, below_R = self.sums[above], self.sums[below]
            if below_R.sum() != 0:
                value, error = (above_R.sum() / below_R.sum()).item(), ratio_standard_error(above_R, below_R)
                found[name] = Number(value, error, int(self.sums[over].sum()), controls.get(name))
        return found


def _with_shares(sums: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**sums, "kept": sums["range"] - sums["rise"], "explained": sums["variance"] - sums["error"]}


def add(means: Means, batch: Batch, label: str, zero: Lost, mean_D: Tensor) -> None:
    """Take in a batch of one SAE; `zero` is what the model loses with zeros at its site, whose mean is given."""
    where_RT, counted_RT = batch.replaced(label), batch.counted(label)
    counts_N, sequence_N = counted_RT[where_RT], counted_RT.nonzero()[:, 0] + batch.first
    lost, (codes, y_hat_ND) = batch.lost_by(label), batch.coded(label)
    y_ND = batch.written(label, where_RT).to(y_hat_ND.dtype)
    means.add("rise", lost.sequence_N, lost.ce[label] - lost.ce[CLEAN])
    means.add("range", lost.sequence_N, zero.ce["zero"] - lost.ce[CLEAN])
    means.add("kl", lost.sequence_N, lost.kl[label])
    means.add("error", sequence_N, (y_ND - y_hat_ND).double().square().sum(1)[counts_N])
    means.add("variance", sequence_N, (y_ND - mean_D.to(y_ND)).double().square().sum(1)[counts_N])
    means.add("l0", sequence_N, codes.offsets.diff()[counts_N])
