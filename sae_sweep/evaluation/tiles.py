"""Cross-entropy and KL over a vocabulary of which a tile of logits exists at a time: some positions by some tokens.

A position needs three sums of a pass: log-sum-exp of its logits y, the logit of its target, and its logits' mean under
the clean distribution p. Each tile adds to running sums, so memory depends neither on the vocabulary nor on the number
of positions, and the head stays a product of matrices. The clean tile serves every pass. With x the clean logits,

    CE = lse(y) - y_target        KL(p || q) = E_p[x] - lse(x) - (E_p[y] - lse(y))
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from sae_sweep.model.head import Head, head_of
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.plan.constants import TILE_TOKENS, positions_together


class RunningSums:
    """What P passes lose at n positions, the clean one first; in float64."""

    def __init__(self, target_n: Tensor, passes: int) -> None:
        self._target_n = target_n
        self._target_Pn, self._mean_Pn = target_n.new_zeros(2, passes, len(target_n), dtype=torch.float64)
        self.lse_Pn = torch.full_like(self._mean_Pn, -torch.inf)

    def add(self, number: int, first: int, y_nV: Tensor) -> None:
        """Add a pass's logits [n, v] of the tokens from `first` on; of each tile the clean pass's come first."""
        log_nV = torch.log_softmax(y_nV, dim=1)
        # What log_softmax has taken off, told where it is smallest: small numbers are rounded least.
        own_n = y_nV.amax(1).double() - log_nV.amax(1).double()
        lse_n = torch.logaddexp(self.lse_Pn[number], own_n)
        if number == 0:
            self._p_nV = log_nV.exp()
            self._kept_n, self._new_n = (self.lse_Pn[0] - lse_n).exp(), (own_n - lse_n).exp()
        mean_n = log_nV.mul_(self._p_nV).sum(1).double() + own_n
        self._mean_Pn[number] = self._kept_n * self._mean_Pn[number] + self._new_n * mean_n
        self.lse_Pn[number] = lse_n
        self._look_up(number, first, y_nV)

    def _look_up(self, number: int, first: int, y_nV: Tensor) -> None:
        place_n = self._target_n - first
        near_n = place_n.clamp(0, y_nV.shape[1] - 1)
        found_n = y_nV.gather(1, near_n[:, None])[:, 0].double()
        self._target_Pn[number] = torch.where(place_n == near_n, found_n, self._target_Pn[number])

    @property
    def ce_Pn(self) -> Tensor:
        """[P, n]: each pass's cross-entropy, in nats."""
        return self.lse_Pn - self._target_Pn

    @property
    def kl_Pn(self) -> Tensor:
        """[P, n]: KL(clean || pass), in nats; 0 of the clean pass."""
        expected_Pn = self._mean_Pn - self.lse_Pn
        return expected_Pn[0] - expected_Pn


def positions_of(head: Head, device: torch.device) -> int:
    """How many positions are looked at together."""
    return positions_together(device.type, head.width, whole=len(head.tiles(TILE_TOKENS[device.type])) == 1)


def losses_of(head: Head, hidden: Sequence[Tensor], target_n: Tensor) -> Tensor:
    """[2, P, n] float64: CE, and KL from the first, of P passes with these final hidden states [n, D]."""
    tiles = head.tiles(TILE_TOKENS[target_n.device.type])
    if len(tiles) == 1:
        return _of_rows(head, hidden, target_n)
    sums = RunningSums(target_n, len(hidden))
    for tokens in tiles:
        for number, hidden_nD in enumerate(hidden):
            sums.add(number, tokens.start, head(hidden_nD, tokens))
    return torch.stack([sums.ce_Pn, sums.kl_Pn])


def _of_rows(head: Head, hidden: Sequence[Tensor], target_n: Tensor) -> Tensor:
    """The same where a tile has the whole vocabulary: there is nothing to carry from one to the next."""
    found = target_n.new_zeros(2, len(hidden), len(target_n), dtype=torch.float64)
    for number, hidden_nD in enumerate(hidden):
        log_nV = torch.log_softmax(head(hidden_nD), dim=1)
        found[0, number] = -log_nV.gather(1, target_n[:, None])[:, 0]
        if number == 0:
            p_nV = log_nV.exp()
            negative_entropy_n = log_nV.mul_(p_nV).sum(1)
        else:
            found[1, number] = negative_entropy_n - log_nV.mul_(p_nV).sum(1)
    return found


def kl_and_gradient(model: LanguageModel, clean_ND: Tensor, spliced_ND: Tensor) -> tuple[Tensor, Tensor]:
    """KL(clean || spliced) of final hidden states, in nats, summed over positions; and its gradient [N, D] in the
    latter where gradients are enabled, else [0, D]."""
    total, gradients = torch.zeros((), dtype=torch.float64, device=clean_ND.device), [spliced_ND[:0]]
    with head_of(model) as head:
        step = positions_of(head, clean_ND.device)
        for clean_nD, spliced_nD in zip(clean_ND.split(step), spliced_ND.split(step), strict=True):
            kl, gradient_nD = _of_positions(head, clean_nD, spliced_nD)
            total = total + kl
            gradients += gradient_nD
    return total, torch.cat(gradients)


def _of_positions(head: Head, clean_nD: Tensor, spliced_nD: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The same of as many positions as a tile has. dKL/dy = q - p, which takes both passes' log-sum-exp: with several
    tiles each is computed a second time."""
    leaf_nD = spliced_nD.detach().requires_grad_(torch.is_grad_enabled())
    tiles = head.tiles(TILE_TOKENS[clean_nD.device.type])

    def both(tokens: slice, *, differentiate: bool) -> tuple[Tensor, Tensor]:
        with torch.set_grad_enabled(differentiate and leaf_nD.requires_grad):
            return head(clean_nD, tokens), head(leaf_nD, tokens)

    only = both(tiles[0], differentiate=True) if len(tiles) == 1 else None
    sums = RunningSums(torch.zeros(len(leaf_nD), dtype=torch.int64, device=leaf_nD.device), 2)
    for tokens in tiles:
        for number, y_nV in enumerate(only or both(tokens, differentiate=False)):
            sums.add(number, tokens.start, y_nV.detach())
    kl = sums.kl_Pn[1].sum()
    if not leaf_nD.requires_grad:
        return kl, []
    gradient_nD = torch.zeros_like(spliced_nD)
    for tokens in tiles:
        x_nV, y_nV = only or both(tokens, differentiate=True)
        lse = sums.lse_Pn[..., None].to(x_nV.dtype)
        p_nV, q_nV = (x_nV - lse[0]).exp_(), (y_nV.detach() - lse[1]).exp_()
        gradient_nD += torch.autograd.grad(y_nV, leaf_nD, q_nV.sub_(p_nV))[0]
    return kl, [gradient_nD]
