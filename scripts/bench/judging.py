"""What CE and KL cost on one core, against the head's product alone, on random weights.

    python scripts/bench/judging.py                              d 640, vocabularies of 2,048, 49,152 and 262,144
    python scripts/bench/judging.py --vocabularies 32000 --d 2048

Per position and pass, in microseconds of this thread's time, the least of --rounds:

    product     the head's product, 1,024 positions by 4,096 tokens at a time, of which nothing is read
    rows        whole rows of logits, 2^18 of them at a time: log-softmax and a product with clean probabilities
    tiles       `evaluation/tiles.py`
    MB          by how much the process's peak grew with the tiles of four times as many positions
"""

import argparse
from collections.abc import Callable
from resource import RUSAGE_SELF, getrusage
from time import thread_time

import torch

from sae_sweep.evaluation.tiles import losses_of, positions_of
from sae_sweep.host import allocator
from sae_sweep.model.head import Head

ROWS = 2**18


class Problem:
    """Final hidden states [N, D] of a clean pass and others, and a head."""

    def __init__(self, positions: int, d: int, vocabulary: int, passes: int) -> None:
        self.weight_VD = torch.randn(vocabulary, d) / d**0.5
        clean_ND = torch.randn(positions, d)
        self.hidden = [clean_ND, *(clean_ND + 0.3 * torch.randn(positions, d) for _ in range(passes - 1))]
        self.target_N = torch.randint(vocabulary, (positions,))
        self.head = Head(lambda h, tokens: h @ self.weight_VD[tokens].T, vocabulary, tiled=True)

    def product(self) -> None:
        out = torch.empty(1024, 4096)
        for hidden_ND in self.hidden:
            for part_nD in hidden_ND.split(1024):
                for tile_vD in self.weight_VD.split(4096):
                    torch.mm(part_nD, tile_vD.T, out=out[: len(part_nD), : len(tile_vD)])

    def rows(self, positions: int) -> None:
        step = max(1, ROWS // len(self.weight_VD))
        for first in range(0, positions, step):
            part = slice(first, min(first + step, positions))
            clean_nV = self.head(self.hidden[0][part]).log_softmax(-1)
            p_nV = clean_nV.exp()
            entropy_n = clean_nV.mul_(p_nV).sum(1)
            for hidden_ND in self.hidden[1:]:
                log_nV = self.head(hidden_ND[part]).log_softmax(-1)
                log_nV.gather(1, self.target_N[part, None])
                entropy_n - log_nV.mul_(p_nV).sum(1)

    def tiles(self) -> None:
        step = positions_of(self.head, self.target_N.device)
        for first in range(0, len(self.target_N), step):
            part = slice(first, first + step)
            losses_of(self.head, [hidden_ND[part] for hidden_ND in self.hidden], self.target_N[part])


def least(work: Callable[[], object], rounds: int, units: int) -> float:
    """Microseconds of this thread's time for each of so many units."""
    found = []
    for _ in range(rounds):
        begun = thread_time()
        work()
        found.append(thread_time() - begun)
    return 1e6 * min(found) / units


def peak() -> float:
    """The most this process has held, in MB."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1e3


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[2_048, 49_152, 262_144])
    parser.add_argument("--d", type=int, default=640)
    parser.add_argument("--positions", type=int, default=512)
    parser.add_argument("--passes", type=int, default=4, help="the clean one too")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    allocator.tune()
    torch.set_num_threads(1)
    print(f"{'V':>9}{'product':>10}{'rows':>10}{'tiles':>10}{'rows/product':>14}{'tiles/product':>15}{'MB':>7}")
    for vocabulary in asked.vocabularies:
        own, units = Problem(asked.positions, asked.d, vocabulary, asked.passes), asked.positions * asked.passes
        few = max(1, min(asked.positions, 2**22 // vocabulary))  # a row at a time takes long
        product, tiles = (least(work, asked.rounds, units) for work in (own.product, own.tiles))
        rows = least(lambda own=own, few=few: own.rows(few), asked.rounds, few * asked.passes)  # type: ignore[misc]
        more = Problem(4 * asked.positions, asked.d, vocabulary, 1)
        before = peak()
        more.tiles()
        numbers = f"{product:>10.1f}{rows:>10.1f}{tiles:>10.1f}{rows / product:>14.2f}{tiles / product:>15.2f}"
        print(f"{vocabulary:>9,}{numbers}{peak() - before:>7.0f}", flush=True)


if __name__ == "__main__":
    main()
