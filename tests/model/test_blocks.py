"""Finding the blocks of models that are built otherwise."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sae_sweep.errors import ConfigError
from sae_sweep.model.mapping import map_blocks


class Block(nn.Module):
    """Adds a linear part, and gives what `form` makes of the sum."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.mlp, self.self_attn, self.form = nn.Linear(4, 4), nn.Linear(4, 4), form

    def forward(self, hidden_states: Tensor) -> Any:
        attended = hidden_states + self.self_attn(hidden_states)
        return self.form(attended + self.mlp(attended))


class Model(nn.Module):
    """Sees with as many blocks as it reads with, and these come first."""

    def __init__(self, form: Callable[[Tensor], Any], named: bool = True) -> None:
        super().__init__()
        self.vision = nn.ModuleList([Block(form), Block(form)])
        self.text = nn.Module()
        self.text.h = nn.ModuleList([Block(form), Block(form)])
        self.get_decoder = lambda: self.text if named else self

    def read(self) -> None:
        hidden: Any = torch.ones(1, 3, 4)
        for block in self.text.h:  # type: ignore[union-attr]  # a module's attributes have no types
            hidden = block(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple | list) else hidden


@pytest.mark.parametrize(
    "form", [lambda x: x, lambda x: (x, None), lambda x: [x, None]], ids=["plain", "tuple", "list"]
)
def test_the_blocks_that_read_text_are_found_whatever_form_they_give(form: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    model = Model(form)
    found = map_blocks(model, 2, model.read)
    assert [block.module for block in found.blocks] == list(model.text.h)  # type: ignore[arg-type]
    assert all(block.plain and not block.parallel for block in found.blocks)


def test_what_is_not_supported_says_why() -> None:
    seeing = Model(lambda x: x, named=False)
    with pytest.raises(ConfigError, match="not supported: a Block takes no part in reading text"):
        map_blocks(seeing, 2, seeing.read)
    odd = Model(lambda x: {"hidden": x})
    with pytest.raises(ConfigError, match="not supported: a block or part gives a dict, not a tensor"):
        map_blocks(odd, 2, odd.read)
