from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import DataConfig, ToyConfig
from sae_sweep.data.toy import ToyData

TOY = ToyConfig(dimensions=4, latents=6, active=2.0, decay=0.9, correlated=True, noise=0.1)
DATA = replace(config_of({"data": "toy"}).data, toy=TOY, context=5, window_rows=1, block_rows=4, rows_per_forward=1)
ROWS = 20


def stream(config: DataConfig = DATA, dtype: torch.dtype = torch.float32) -> ToyStream:
    return ToyStream(config, dtype, torch.device("cpu"))


def true_codes(index: int, config: DataConfig = DATA) -> Tensor:
    assert config.toy is not None
    return torch.cat(list(ToyData(config.toy, config.seed).codes("training", index, ROWS)))


def test_a_block_is_like_one_of_a_language_model() -> None:
    block = stream().block(2)
    assert (block.index, block.epoch, list(block.activations), list(block.tokens)) == (2, 0, ["toy"], ["toy"])
    assert block.activations["toy"].shape == (ROWS, 4)
    assert block.activations["toy"].dtype == torch.float32
    assert torch.equal(block.tokens["toy"], torch.zeros(ROWS, dtype=torch.int64))
    assert stream(dtype=torch.bfloat16).block(0).activations["toy"].dtype == torch.bfloat16


def test_blocks_are_the_same_in_any_order_and_differ() -> None:
    forwards, backwards = stream(), stream()
    blocks = [forwards.block(index).activations["toy"] for index in range(3)]
    for index in (2, 0, 1):
        assert torch.equal(backwards.block(index).activations["toy"], blocks[index])
    assert not torch.equal(blocks[0], blocks[1])
    assert not torch.equal(stream(replace(DATA, seed=1)).block(0).activations["toy"], blocks[0])


def test_activations_are_those_of_the_codes() -> None:
    made = stream(replace(DATA, toy=replace(TOY, noise=0.0)))
    assert torch.allclose(made.block(1).activations["toy"], true_codes(1) @ made.truth_GD, atol=1e-6)


def test_heldout_rows_are_in_no_block() -> None:
    made = stream()
    trained = torch.cat([made.block(index).activations["toy"] for index in range(3)])
    heldout = torch.cat(list(made.heldout(50)))
    assert heldout.shape == (50, 4)
    assert torch.cdist(heldout, trained).min() > 0
    as_many = torch.cat(list(made.heldout(ROWS)))
    assert torch.cdist(as_many, trained).min() > 0, "drawn like a block, and yet another"
    assert torch.equal(heldout, torch.cat(list(stream().heldout(50))))


@pytest.mark.parametrize(
    ("steps", "batch_size", "rows_of_blocks"),
    [
        (10, 5, [20, 20, 10]),  # batches that divide a block; the last block in part
        (8, 5, [20, 20]),
        (5, 8, [16, 16, 8]),  # 4 rows of each block are left over
        (1, 20, [20]),
        (0, 5, []),
    ],
)
@pytest.mark.parametrize("drawn", [True, False])
def test_firing_in_training_is_counted_exactly(
    steps: int, batch_size: int, rows_of_blocks: list[int], drawn: bool
) -> None:
    made = stream()
    if drawn:
        for index in range(3):
            made.block(index)
    wanted = torch.zeros(6, dtype=torch.int64)
    for index, rows in enumerate(rows_of_blocks):
        wanted += (true_codes(index)[:rows] > 0).sum(0)
    assert torch.equal(made.fired(steps, batch_size), wanted)


def test_firing_is_counted_over_rows_drawn_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sae_sweep.data.toy._CODE_ELEMENTS", 6 * 8)
    made = stream()
    wanted = (true_codes(0)[:10] > 0).sum(0)
    assert torch.equal(made.fired(2, 5), wanted)
    made.block(0)
    assert torch.equal(made.fired(4, 5), (true_codes(0) > 0).sum(0))
