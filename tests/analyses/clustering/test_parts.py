"""Components, tables, names and controls, by hand."""

from dataclasses import dataclass
from math import log

import pytest
import torch

from sae_sweep.analyses.clustering.components import Components, components, residual_centroids
from sae_sweep.analyses.clustering.controls import matched
from sae_sweep.analyses.clustering.naming import names, strongest
from sae_sweep.analyses.clustering.ngrams import Ngrams, of_stream
from sae_sweep.analyses.session.kept import Kept
from sae_sweep.analyses.session.told import unseen
from sae_sweep.kernels.entries import Entries

POINTS = torch.tensor([[13.0, 1.0], [13.0, -1.0], [7.0, 1.0], [7.0, -1.0]]).repeat(4, 1)


def test_a_component_and_a_centroid() -> None:
    """Points (10 ± 3, ±1): the first component is the first axis, and leaves ±1 on the second, which are two
    centroids. Alone it leaves an error of 1; a centroid alone has two of four clusters to choose from."""
    first = components(POINTS, 1)
    assert first.abs().tolist() == [pytest.approx([1, 0], abs=1e-6)]
    rest = residual_centroids(POINTS, first, 2, seed=0)
    assert sorted(rest[:, 1].tolist()) == pytest.approx([-1, 1])
    mean = POINTS.mean(0)
    both, alone = Components(mean, first, rest), Components(mean, first, rest[:0])
    assert torch.allclose(both.reconstructed(POINTS), POINTS, atol=1e-5)
    assert torch.allclose(alone.reconstructed(POINTS), torch.stack([POINTS[:, 0], torch.zeros(16)], 1), atol=1e-5)
    found = both.clusters(POINTS)
    assert found[0] == found[2] != found[1]
    assert residual_centroids(POINTS, first, 5, seed=0).shape == (2, 2), "one for each eight points at most"


def test_tables_of_n_grams() -> None:
    """Pairs 0 1, 0 1, 0 2, 1 0 of three tokens: the next ones are 1, 1, 2, 0, so with three kinds spread over three
    tokens p(1) = (2 + 1) / 7 and p(0) = p(2) = 2 / 7. After 0 two kinds were seen: p(1 | 0) = (2 + 2 * 3 / 7) / 5."""
    table = Ngrams.of(torch.tensor([1, 1, 2, 3]), 3)
    assert table.unigram(torch.tensor([0, 1, 2])).tolist() == pytest.approx([-log(2 / 7), -log(3 / 7), -log(2 / 7)])
    found = table.bigram(torch.tensor([0, 0, 1, 2]), torch.tensor([1, 0, 0, 0]))
    chances = [(2 + 2 * 3 / 7) / 5, (2 * 2 / 7) / 5, (1 + 2 / 7) / 2, 2 / 7]
    assert found.tolist() == pytest.approx([-log(chance) for chance in chances])
    whole = table.bigram(torch.tensor([0, 0, 0]), torch.tensor([0, 1, 2]))
    assert (-whole).exp().sum().item() == pytest.approx(1)


@dataclass
class Source:
    """Rows of two blocks, then the same again."""

    def training_rows(self, index: int) -> object:
        rows = torch.tensor([[[9, 1, 2, ~3, 4]], [[1, 1, 2, 3, 0]]], dtype=torch.int32)
        return rows[index % 2].numpy(), index // 2


@dataclass
class Facts:
    vocab_size: int = 10


class Model:
    """Whose token 0 is special, without BOS."""

    special_ids = torch.tensor([0])
    bos_id = None
    facts = Facts()


@dataclass
class Text:
    """A stream of these."""

    model = Model()
    source = Source()


@pytest.mark.parametrize(("tokens", "pairs"), [(99, [12, 12, 23]), (2, [12, 12])])
def test_pairs_of_one_epoch(tokens: int, pairs: list[int]) -> None:
    """The first position does not count, nor what is left out, nor a next token that is special: 1 2 of the first row,
    1 2 and 2 3 of the second."""
    table = of_stream(Kept(), "pairs", Text(), tokens, unseen())  # type: ignore[arg-type]
    assert table.pair_P.repeat_interleave(table.count_P).tolist() == pairs


def test_counting_goes_on_where_it_was() -> None:
    """It dies before the second block; who goes on reads that one alone, and both are counted."""
    kept, dying, asked = Kept(), Text(), []

    class Dies(Source):
        def training_rows(self, index: int) -> object:
            asked.append(index)
            if len(asked) == 2:
                raise KeyboardInterrupt
            return super().training_rows(index)

    dying.source = Dies()
    with pytest.raises(KeyboardInterrupt):
        of_stream(kept, "pairs", dying, 99, unseen())  # type: ignore[arg-type]
    table = of_stream(kept, "pairs", dying, 99, unseen())  # type: ignore[arg-type]
    assert asked == [0, 1, 1, 2]
    assert (table.pair_P.tolist(), table.count_P.tolist()) == ([12, 23], [2, 1])


def test_clusters_by_their_most_frequent_token() -> None:
    """Of three tokens the first's largest latent is 2, the second's 0 (of equal ones the first), the third has none."""
    codes = Entries(torch.tensor([0, 2, 4, 4]), torch.tensor([1, 2, 0, 3]), torch.tensor([0.5, 2.0, 1.0, 1.0]))
    assert strongest(codes, 4).tolist() == [2, 0, 4]
    cluster, token = torch.tensor([0, 0, 0, 2, 2, 3]), torch.tensor([7, 5, 7, 5, 6, 7])
    assert names(cluster, token, 3).tolist() == [7, 7, 5, 7], "1 has none, of 2 the first, 3 is of all the rest"


def test_controls_at_an_l0() -> None:
    """8 is half way from 4 to 16 in its logarithm; 17 is within a tenth of 16, and 20 is not."""
    points = [(16.0, "b"), (4.0, "a"), (0.0, "none")]
    assert matched(points, 8, 0.1) == pytest.approx({"a": 0.5, "b": 0.5})
    assert matched(points, 17, 0.1) == {"b": 1}
    assert matched(points, 20, 0.1) is None
    assert matched(points, 0, 0.1) is None
    assert matched([], 8, 0.1) is None
    assert matched(points, 16, 0) == {"b": 1}
