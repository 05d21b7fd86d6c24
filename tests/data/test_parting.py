"""Which configs may keep attention within documents, and by which ids these are known."""

from dataclasses import replace
from typing import Any

import pytest

from sae_sweep.config.files import config_of
from sae_sweep.data.checks import check_data
from sae_sweep.data.parting import parting
from sae_sweep.errors import ConfigError
from sae_sweep.model.parting import Parting
from sae_sweep.plan.limits import check_config


def test_documents_are_known_by_bos_and_eos(make_config: Any, make_tokenizer: Any) -> None:
    within = make_config("demo", attention="document")
    assert parting(make_config("demo"), make_tokenizer()) is None
    assert parting(within, make_tokenizer()) == Parting(1, 2)
    assert parting(within, make_tokenizer(eos_token_id=1)) == Parting(1, None)
    assert parting(replace(within, bos="never"), make_tokenizer()) == Parting(None, 2)
    for tokenizer in (None, make_tokenizer(bos_token_id=None, eos_token_id=None)):
        with pytest.raises(
            ConfigError, match=r"data\.attention=document: the model has no tokenizer with a BOS or EOS"
        ):
            parting(within, tokenizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attention": "sequence"}, r"data\.attention=sequence is not one of row, document"),
        ({"packing": "document"}, r"data\.attention=document with data\.packing=document; take"),
        ({"chat": True, "kind": "text", "path": "a.jsonl"}, r"data\.attention=document with data\.chat=true: its EOS"),
        ({"kind": "activations", "path": "a.npy"}, r"data\.attention=document is not read with data\.kind=activations"),
    ],
)
def test_what_it_does_not_go_with(changes: dict[str, Any], message: str, make_config: Any) -> None:
    values = {"kind": "demo", "attention": "document", **changes}
    with pytest.raises(ConfigError, match=message):
        check_data(make_config(**values))


def test_it_is_of_hugging_faces_backend() -> None:
    config = config_of({"data.attention": "document", "model.backend": "transformer_lens"})
    with pytest.raises(ConfigError, match=r"data\.attention=document is model\.backend=hf's, and transformer_lens is"):
        check_config(config)
