"""Padded rows of token ids give the activations of the plain Hugging Face model that is told of the padding."""

from collections.abc import Callable

import pytest
import torch
from transformers import AutoModelForCausalLM

from sae_sweep.config.schema import ModelConfig
from sae_sweep.data.companions import encoded
from sae_sweep.data.positions import readable
from sae_sweep.model.harvest import harvest
from sae_sweep.model.load import load_model


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_activations_of_padded_rows_are_the_models_own(
    name: str, request: pytest.FixtureRequest, model_config: Callable[..., ModelConfig]
) -> None:
    """With a mask and positions given to the plain Hugging Face model, in float64, padded on either side."""
    folder = request.getfixturevalue(f"{name}_folder")
    ids = torch.randint(3, 259, (4, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :5], mask[1, 9:], mask[2, :1] = 0, 0, 0
    position_ids = (mask.cumsum(1) - 1).clamp(min=0)
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
    with torch.no_grad():
        hidden = plain(input_ids=ids, attention_mask=mask, position_ids=position_ids, output_hidden_states=True)
    expected_RTD = hidden.hidden_states[2]  # what enters block 2
    model = load_model(model_config(folder, dtype="float64"))
    made = torch.from_numpy(encoded(ids.numpy(), {"attention_mask": mask.numpy()}, 300, "x")).long()
    hook = "blocks.2.hook_resid_pre"
    found_RTD = harvest(model, readable(made), [hook])[hook]
    assert (made >= 0).sum() == mask.sum()
    torch.testing.assert_close(found_RTD[made >= 0], expected_RTD[mask == 1], rtol=1e-10, atol=1e-10)
