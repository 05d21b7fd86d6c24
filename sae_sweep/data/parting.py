"""By which ids packed rows are parted into documents, for attention that does not cross them
(`data.attention=document`)."""

from sae_sweep.config.schema import DataConfig
from sae_sweep.data.packing import Tokenizer
from sae_sweep.errors import ConfigError
from sae_sweep.model.parting import Parting


def parting(config: DataConfig, tokenizer: Tokenizer | None) -> Parting | None:
    """How rows are parted; None where attention may cross documents. Raises ConfigError where no id would part them."""
    if config.attention == "row":
        return None
    bos_id = tokenizer.bos_token_id if tokenizer is not None and config.bos != "never" else None
    eos_id = tokenizer.eos_token_id if tokenizer is not None else None
    if bos_id is None and eos_id is None:
        raise ConfigError(
            "data.attention=document: the model has no tokenizer with a BOS or EOS token, by which documents would be"
            " known; take data.packing=document"
        )
    return Parting(bos_id, None if eos_id == bos_id else eos_id)
