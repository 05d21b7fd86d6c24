from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sae_sweep.activations.outliers import largest_norm, row_norms
from sae_sweep.activations.stream import ActivationStream
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import ModelConfig
from sae_sweep.data.rows import BLOCK_ORDER, RowReader, TokenStream, permutation
from sae_sweep.errors import ConfigError
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model

BOS, EOS = 1, 2
CONTEXT, BLOCK_ROWS = 6, 5
WIDTHS = {"blocks.0.hook_resid_post": 3, "blocks.1.mlp.hook_post": 5}
HOOKS = tuple(WIDTHS)


def config(**changes: Any) -> Any:
    values = {"kind": "tokens", "path": "x", "field": "tokens", "context": CONTEXT, "block_rows": BLOCK_ROWS}
    few = {"window_rows": 4, "rows_per_forward": 2, "max_norm_ratio": None}
    return replace(config_of({}).data, **(values | few | changes))


def token_rows() -> Any:
    """Twelve rows of tokens that are all different, but for BOS in front of two thirds and EOS inside some."""
    rows = np.arange(10, 10 + 12 * CONTEXT, dtype=np.int32).reshape(12, CONTEXT)
    rows[::3, 0] = rows[1::3, 0] = BOS
    rows[2::4, 3] = EOS
    return rows


class Harvest:
    """A model whose activation at a site is (token, position in the row, hook number, ...); it remembers its calls."""

    def __init__(self, dtype: Any = torch.float32, spoil: Any = lambda hook, x: x) -> None:
        self.dtype = dtype
        self.spoil = spoil
        self.calls = []

    def __call__(self, model: Any, tokens_RT: torch.Tensor, hooks: Any) -> Any:
        assert tokens_RT.dtype == torch.int64
        self.calls.append((tokens_RT.clone(), tuple(hooks)))
        positions = torch.arange(tokens_RT.shape[1]).expand_as(tokens_RT)
        activations = {}
        for hook in hooks:
            x = torch.full((*tokens_RT.shape, WIDTHS[hook]), float(HOOKS.index(hook)))
            x[..., 0], x[..., 1] = tokens_RT, positions
            activations[hook] = self.spoil(hook, x).to(self.dtype)
        return activations


def model(special_ids: Any = (BOS, EOS), bos_id: int | None = BOS) -> Any:
    tokenizer = SimpleNamespace(all_special_ids=list(special_ids), bos_token_id=bos_id)
    return SimpleNamespace(tokenizer=tokenizer, device=torch.device("cpu"))


def activations(
    harvest: Any = None, hooks: Any = HOOKS, language_model: Any = None, rows: Any = None, **changes: Any
) -> Any:
    settings = config(**changes)
    rows = token_rows() if rows is None else rows
    reader = RowReader(lambda: iter([rows]), rows.shape[1], kept=True)
    stream = TokenStream(reader, settings.seed, settings.window_rows, settings.block_rows)
    return ActivationStream(language_model or model(), stream, hooks, settings, harvest or Harvest()), stream


def test_every_counted_position_comes_once_with_its_token_at_every_site() -> None:
    stream, rows = activations()
    for index in range(6):
        block = stream.block(index)
        tokens, epoch = rows.block(index)
        expected = [
            (token, position)
            for row in tokens.tolist()
            for position, token in enumerate(row)
            if position > 0 and token not in (BOS, EOS)
        ]
        for number, hook in enumerate(HOOKS):
            x_BD = block.activations[hook]
            assert x_BD.shape == (len(expected), WIDTHS[hook])
            assert torch.equal(x_BD[:, 0].long(), block.tokens[hook])
            assert (x_BD[:, 2:] == number).all()
            assert sorted(map(tuple, x_BD[:, :2].long().tolist())) == sorted(expected)
        assert (block.index, block.epoch) == (index, epoch)
        assert block.tokens[HOOKS[0]].dtype == torch.int64
        assert list(block.activations) == list(HOOKS)


def test_blocks_are_permuted_by_seed_and_index() -> None:
    stream, rows = activations(seed=3)
    for index in range(4):
        tokens_RT = torch.from_numpy(rows.block(index)[0]).long()
        in_order = tokens_RT[:, 1:][~torch.isin(tokens_RT[:, 1:], torch.tensor([BOS, EOS]))]
        places = torch.from_numpy(permutation(len(in_order), BLOCK_ORDER, 3, index))
        assert torch.equal(stream.block(index).tokens[HOOKS[0]][places], in_order)


def test_blocks_are_the_same_whatever_was_asked_before_and_whoever_asks() -> None:
    walked, _ = activations(seed=1)
    blocks = [walked.block(index) for index in range(8)]
    other, _ = activations(seed=1)
    alone, _ = activations(seed=1, hooks=HOOKS[1:])
    for index in (7, 0, 3, 3):
        again = other.block(index)
        assert torch.equal(again.tokens[HOOKS[0]], blocks[index].tokens[HOOKS[0]])
        assert again.epoch == blocks[index].epoch
        for hook in HOOKS:
            assert torch.equal(again.activations[hook], blocks[index].activations[hook])
        assert torch.equal(alone.block(index).activations[HOOKS[1]], blocks[index].activations[HOOKS[1]])


def test_the_seed_changes_the_order() -> None:
    first, second = (activations(seed=seed, window_rows=12, block_rows=12)[0].block(0) for seed in (0, 1))
    assert not torch.equal(first.tokens[HOOKS[0]], second.tokens[HOOKS[0]])
    assert torch.equal(first.tokens[HOOKS[0]].sort().values, second.tokens[HOOKS[0]].sort().values)


@pytest.mark.parametrize("rows_per_forward", [1, 2, 5, 100])
def test_rows_per_forward_changes_the_calls_and_nothing_else(rows_per_forward: int) -> None:
    harvest = Harvest()
    block = activations(harvest, rows_per_forward=rows_per_forward)[0].block(1)
    sizes = [len(tokens) for tokens, _ in harvest.calls]
    assert sum(sizes) == BLOCK_ROWS
    assert max(sizes) == min(rows_per_forward, BLOCK_ROWS)
    assert len(sizes) == -(-BLOCK_ROWS // rows_per_forward)
    assert {hooks for _, hooks in harvest.calls} == {HOOKS}
    reference = activations()[0].block(1)
    assert torch.equal(block.tokens[HOOKS[0]], reference.tokens[HOOKS[0]])
    for hook in HOOKS:
        assert torch.equal(block.activations[hook], reference.activations[hook])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_models_dtype_is_kept(dtype: Any) -> None:
    block = activations(Harvest(dtype))[0].block(0)
    assert {x.dtype for x in block.activations.values()} == {dtype}


def test_activations_need_no_gradient() -> None:
    def grown(hook: str, x: torch.Tensor) -> Any:
        return x * torch.ones((), requires_grad=True)

    block = activations(Harvest(spoil=grown))[0].block(0)
    assert not any(x.requires_grad for x in block.activations.values())


def test_without_a_tokenizer_all_but_first_positions_count() -> None:
    bare = SimpleNamespace(tokenizer=None, device=torch.device("cpu"))
    block = activations(language_model=bare)[0].block(0)
    assert len(block.tokens[HOOKS[0]]) == BLOCK_ROWS * (CONTEXT - 1)


def test_each_site_guards_for_itself() -> None:
    outlier = 10 + 3 * CONTEXT + 2  # a counted token of row 3
    loud = {HOOKS[0]: outlier, HOOKS[1]: outlier + 1}

    def spoil(hook: str, x: torch.Tensor) -> Any:
        return torch.where((x[..., :1] == loud[hook]), x * 1e4, x)

    free = activations(Harvest(spoil=spoil), window_rows=12, block_rows=12)[0].block(0)
    guarded = activations(Harvest(spoil=spoil), window_rows=12, block_rows=12, max_norm_ratio=10.0)[0].block(0)
    for hook in HOOKS:
        keep = free.tokens[hook] != loud[hook]
        assert int((~keep).sum()) == 1
        found, tokens_B = guarded.take([hook], slice(None))
        assert torch.equal(tokens_B, free.tokens[hook][keep])
        assert torch.equal(found[hook], free.activations[hook][keep])
        assert guarded.count([hook]) == len(tokens_B)
        assert torch.equal(guarded.tokens[hook], free.tokens[hook])  # what a checkpoint's stamp is of
    keep = ~torch.isin(free.tokens[HOOKS[0]], torch.tensor(list(loud.values())))
    found, tokens_B = guarded.take(HOOKS, slice(1, 7))  # who reads both loses both, and cuts what is left into batches
    assert torch.equal(tokens_B, free.tokens[HOOKS[0]][keep][1:7])
    assert all(torch.equal(found[hook], free.activations[hook][keep][1:7]) for hook in HOOKS)
    assert guarded.count(HOOKS) == int(keep.sum()) == len(keep) - 2
    assert (guarded.index, guarded.epoch) == (free.index, free.epoch)


@pytest.mark.parametrize(("long", "of", "expected"), [(0, 2000, 5), (1, 2000, 5), (2, 2000, 10), (60, 2000, 10)])
def test_auto_leaves_out_what_is_long_and_rare(long: int, of: int, expected: int) -> None:
    """One in a thousand or more that are 6 times as long are a kind of token; fewer are outliers."""
    norms = torch.full((of,), 3.0)
    norms[:long] = 18.0
    assert largest_norm(norms, "auto") == expected * 3.0
    assert largest_norm(norms, 7.5) == 7.5 * 3.0


def test_a_guard_that_finds_nothing_changes_nothing() -> None:
    free, guarded = activations()[0].block(0), activations(max_norm_ratio=1e6)[0].block(0)
    for hook in HOOKS:
        assert torch.equal(free.activations[hook], guarded.activations[hook])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("hook", HOOKS)
def test_activations_that_are_not_finite_are_refused(value: float, hook: str) -> None:
    def spoil(name: str, x: torch.Tensor) -> Any:
        if name == hook:
            x[0, 1:, -1] = value
        return x

    with pytest.raises(ConfigError, match=rf"^{hook}: .* in block 2; "):
        activations(Harvest(spoil=spoil))[0].block(2)


def test_what_no_one_counts_may_be_infinite() -> None:
    def spoil(_: Any, x: torch.Tensor) -> Any:
        x[:, 0] = float("inf")  # the first position: never counted
        return x

    assert activations(Harvest(spoil=spoil))[0].block(0).activations[HOOKS[0]].isfinite().all()


def test_a_block_of_special_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"block 0 holds special tokens only"):
        activations(rows=np.full((6, CONTEXT), EOS, dtype=np.int32))[0].block(0)


def test_norms_do_not_overflow_in_half_precision() -> None:
    x = torch.full((2, 4), 60_000.0, dtype=torch.float16)
    assert row_norms(x).tolist() == pytest.approx([119_999.0, 119_999.0], rel=1e-3)
    assert row_norms(x.double()).dtype == torch.float64


def test_with_a_real_model_each_activation_is_that_of_its_token(llama_folder: Path) -> None:
    nothing_given = dict.fromkeys(("revision", "d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size"))
    language_model = load_model(
        ModelConfig(
            name="llama",
            path=str(llama_folder),
            backend="hf",
            dtype="float64",
            device="cpu",
            trust_remote_code=False,
            **nothing_given,
        )
    )
    hooks = ("blocks.0.hook_resid_post", "blocks.2.mlp.hook_post")
    stream, rows = activations(harvest, hooks, language_model)
    block = stream.block(1)
    tokens_RT = torch.from_numpy(rows.block(1)[0]).long()
    counted_RT = tokens_RT > 2  # the tokenizer's specials are 0, 1 and 2
    counted_RT[:, 0] = False
    for hook, x_RTD in harvest(language_model, tokens_RT, hooks).items():
        distances = torch.cdist(block.activations[hook], x_RTD[counted_RT])
        assert distances.min(1).values.max() < 1e-9
        assert torch.equal(tokens_RT[counted_RT][distances.argmin(1)], block.tokens[HOOKS[0]])
        assert sorted(distances.argmin(1).tolist()) == list(range(int(counted_RT.sum())))


def test_smaller_passes_give_the_same_blocks() -> None:
    """Half as many rows in each from there on, down to one."""
    read = Harvest()
    stream, _ = activations(read)
    first, sizes = stream.block(1), []
    for _ in range(2):
        sizes.append(max(len(tokens_RT) for tokens_RT, _ in read.calls))
        more = stream.in_smaller_passes()
        read.calls.clear()
        again = stream.block(1)
        assert all(torch.equal(again.activations[hook], first.activations[hook]) for hook in HOOKS)
    assert (sizes, more) == ([2, 1], False)
