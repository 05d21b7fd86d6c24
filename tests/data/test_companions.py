"""Columns beside token ids: padding is moved behind the tokens, and what does not count holds ~id."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sae_sweep.data.companions import encoded
from sae_sweep.data.positions import counted_positions, readable, target_positions
from sae_sweep.data.tokens import open_tokens
from sae_sweep.errors import ConfigError

PAD = 99


def rows(ids: Any, **beside: Any) -> Any:
    return encoded(
        np.array(ids), {name: np.array(values) for name, values in beside.items()}, 100, "data.path=x"
    ).tolist()


def test_padding_goes_behind_and_does_not_count() -> None:
    ids = [[5, 6, 7, PAD], [PAD, PAD, 5, 6], [5, 6, 7, 8], [PAD] * 4]
    mask = [[1, 1, 1, 0], [0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    expected = [[5, 6, 7, ~0], [5, 6, ~0, ~0], [5, 6, 7, 8]]
    assert rows(ids, attention_mask=mask) == expected
    positions = [[0, 1, 2, 1], [1, 1, 0, 1], [0, 1, 2, 3], [1, 1, 1, 1]]
    assert rows(ids, attention_mask=mask, position_ids=positions) == expected
    assert rows([[-1, 5, 6]], attention_mask=[[0, 1, 1]]) == [[5, 6, ~0]], "an id that pads need not be one"


def test_what_is_not_to_be_learned_from_is_read_but_does_not_count() -> None:
    assert rows([[5, 6, 7, 8]], labels=[[-100, -100, 7, 8]]) == [[~5, ~6, 7, 8]]
    assert rows([[5, 6, 7, 8]], special_tokens_mask=[[1, 0, 0, 1]], token_type_ids=[[0] * 4]) == [[~5, 6, 7, ~8]]
    left = rows([[PAD, 5, 6, 7]], attention_mask=[[0, 1, 1, 1]], labels=[[-100, -100, 6, 7]])
    assert left == [[~5, 6, 7, ~0]]


@pytest.mark.parametrize(
    ("beside", "message"),
    [
        ({"attention_mask": [[1, 0, 1]]}, "attention_mask has holes"),
        ({"position_ids": [[0, 1, 0]]}, "position_ids do not count up from 0"),
        ({"attention_mask": [[0, 1, 1]], "position_ids": [[0, 1, 2]]}, "position_ids do not count up from 0"),
        ({"token_type_ids": [[0, 1, 1]]}, "token_type_ids other than 0"),
        ({"labels": [[1, 2]]}, r"labels has \[1, 2\] entries, and the ids \[1, 3\]"),
    ],
)
def test_what_cannot_be_honoured_is_refused(beside: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\.path=x: {message}"):
        rows([[5, 6, 7]], **beside)


def test_positions_that_count() -> None:
    tokens_RT = torch.tensor([[5, 6, 7, ~0], [~5, ~6, 7, 8]])
    counted_RT = counted_positions(tokens_RT, torch.tensor([8]), None)
    assert counted_RT.tolist() == [[False, True, True, False], [False, False, True, False]]
    assert target_positions(counted_RT, tokens_RT, torch.tensor([8])).tolist() == [
        [False, True, False, False],
        [False, False, False, False],
    ]
    assert readable(tokens_RT).tolist() == [[5, 6, 7, 0], [5, 6, 7, 8]]


def test_columns_are_said_once(tmp_path: Path, make_config: Any, caplog: pytest.LogCaptureFixture) -> None:
    ids = np.arange(40).reshape(10, 4)
    mask = np.ones_like(ids)
    mask[:, 3] = 0
    np.savez(tmp_path / "a.npz", tokens=ids, attention_mask=mask, source=np.arange(10))
    with caplog.at_level(logging.WARNING):
        tokens = open_tokens(make_config("tokens", str(tmp_path / "a.npz")), 4, None, 100)
        for index in range(10):
            tokens.training.block(index)
    assert tokens.heldout.tolist() == [[0, 1, 2, ~0]]
    assert caplog.text.count("attention_mask say which positions are padding") == 1
    assert caplog.text.count("not read: source") == 1


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ([["a", "b"]], [[1, 1]], "holds <U1 values; token ids are integers"),
        ([[5, 6]], [["1", "0"]], "attention_mask holds <U1 values; it is made of numbers"),
        ([[5, 6]], [[1j, 0]], "attention_mask holds complex128 values"),
    ],
)
def test_what_is_no_number(ids: Any, mask: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rows(ids, attention_mask=mask)
