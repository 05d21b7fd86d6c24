"""Means over tokens with errors over sequences: tokens of one text are not independent, texts nearly are."""

from torch import Tensor

from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.result import Number
from sae_sweep.evaluation.jackknife import means_ratio_standard_error, ratio_standard_error


class Means:
    """Sums of what is measured at tokens, by name and held-out sequence, in float64."""

    def __init__(self, kept: Kept, name: str, sequences: int) -> None:
        """`name` is that of all these sums among what the analysis keeps."""
        self._kept, self._name, self._sequences = kept, name, sequences

    def add(self, what: str, sequence_N: Tensor, value_N: Tensor) -> None:
        """Values of N tokens, and the sequence of each."""
        sums_2R = self._sums(what, value_N.device)
        sums_2R[0].index_add_(0, sequence_N, value_N.double())
        sums_2R[1].index_add_(0, sequence_N, value_N.new_ones(len(value_N)).double())

    def mean(self, what: str, control: float | None = None) -> Number:
        """The mean over tokens; of nothing it is 0 of 0."""
        sum_R, count_R = self._sums(what)
        n = int(count_R.sum())
        return Number(sum_R.sum().item() / max(1, n), ratio_standard_error(sum_R, count_R), n, control)

    def ratio(self, what: str, other: str, control: float | None = None) -> Number | None:
        """The mean of one over that of another, both of the same tokens; None where the other is 0."""
        (sum_R, count_R), (other_R, _) = self._sums(what), self._sums(other)
        if other_R.sum() == 0:
            return None
        value = (sum_R.sum() / other_R.sum()).item()
        return Number(value, ratio_standard_error(sum_R, other_R), int(count_R.sum()), control)

    def of_means(self, what: str, other: str, control: float | None = None) -> Number | None:
        """The mean of one over that of another, of tokens of the same sequences; None where either has none, and where
        the other is 0."""
        (sum_R, count_R), (other_R, other_count_R) = self._sums(what), self._sums(other)
        n = int(count_R.sum())
        if n == 0 or other_R.sum() == 0:
            return None
        value = (sum_R.sum() / n / (other_R.sum() / other_count_R.sum())).item()
        return Number(value, means_ratio_standard_error(sum_R, count_R, other_R, other_count_R), n, control)

    def difference(self, what: str, other: str, control: float | None = None) -> Number:
        """The mean of one less that of another, both of the same tokens: what they share is in no error."""
        (sum_R, count_R), (other_R, _) = self._sums(what), self._sums(other)
        n, less_R = int(count_R.sum()), sum_R - other_R
        return Number(less_R.sum().item() / max(1, n), ratio_standard_error(less_R, count_R), n, control)

    def per_sequence(self, what: str) -> tuple[Tensor, Tensor]:
        """[R] twice: the sum of each sequence, and of how many tokens."""
        sums_2R = self._sums(what)
        return sums_2R[0], sums_2R[1]

    def _sums(self, what: str, device: object = "cpu") -> Tensor:
        return self._kept.zeros(f"{self._name}/{what}", 2, self._sequences, device=str(device))
