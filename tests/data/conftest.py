from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import DataConfig

BOS, EOS = 1, 2


@dataclass
class LetterTokenizer:
    """'a' is 10, 'b' 11, ...; spaces have no token."""

    bos_token_id: int | None = BOS
    eos_token_id: int | None = EOS
    documents_seen: int = 0

    @property
    def all_special_ids(self) -> list[int]:
        return [i for i in (self.bos_token_id, self.eos_token_id) if i is not None]

    def __call__(self, text: list[str], *, add_special_tokens: bool, **_: bool) -> dict[str, list[list[int]]]:
        assert not add_special_tokens
        self.documents_seen += len(text)
        return {"input_ids": [[ord(letter) - ord("a") + 10 for letter in one if letter != " "] for one in text]}


@pytest.fixture
def tokenizer() -> LetterTokenizer:
    return LetterTokenizer()


@pytest.fixture
def make_tokenizer() -> type[LetterTokenizer]:
    return LetterTokenizer


@pytest.fixture
def make_config() -> Callable[..., DataConfig]:
    def make(kind: str, path: Any = None, **changes: Any) -> DataConfig:
        values: dict[str, Any] = {
            "kind": kind,
            "path": path,
            "field": "tokens" if kind == "tokens" else "text",
            "context": 4,
            "window_rows": 4,
            "block_rows": 2,
            "rows_per_forward": 2,
            "max_norm_ratio": None,
        }
        return replace(config_of({}).data, **(values | changes))

    return make
