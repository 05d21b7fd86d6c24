from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.config.schema import ModelConfig
from sae_sweep.interop.saelens import FORMS
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.saes.inference import InferenceSae
from tests.evaluation.texts import as_expected

EOS, BOS, PAD = 0, 1, 2


@pytest.fixture(scope="session")
def load_float64() -> Callable[[Path], LanguageModel]:
    """The model of a folder in float64, in a state no other test shares."""

    def load(folder: Path) -> LanguageModel:
        sizes = dict.fromkeys(("d_model", "n_layers", "n_heads", "d_head", "d_mlp", "vocab_size"))
        return load_model(
            ModelConfig(
                name="small",
                path=str(folder),
                revision=None,
                backend="hf",
                dtype="float64",
                device="cpu",
                trust_remote_code=False,
                **sizes,
            )
        )

    return load


@pytest.fixture(scope="session")
def random_sae() -> Callable[..., InferenceSae]:
    """A float64 SAE that reconstructs a little and has decoder rows of different norms."""

    def make(architecture: str, d: int, width: int, seed: int, scale: float, *, subtract: bool = True) -> InferenceSae:
        """`scale` is the size of the activations it will see."""
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        rows = normal(width, d)
        rows /= rows.norm(dim=1, keepdim=True)
        tensors = {
            "W_enc": (rows + 0.05 * normal(width, d)).T.contiguous(),
            "W_dec": rows * (0.3 + 0.2 * normal(width).abs()[:, None]),
            "b_dec": 0.2 * scale * normal(d),
        }
        if architecture == "gated":
            names, sizes = ("b_gate", "b_mag", "r_mag"), (scale, scale, 1.0)
            tensors |= {name: 0.3 * size * normal(width) for name, size in zip(names, sizes, strict=True)}
        else:
            # topk: so low that negative pre-activations are among the k
            tensors["b_enc"] = 0.3 * scale * (normal(width) - (5 if architecture == "topk" else 0))
        if architecture == "jumprelu":
            tensors["threshold"] = scale * normal(width).abs()
        form = FORMS["relu" if architecture == "standard" else architecture].Form
        return InferenceSae(form(5) if architecture == "topk" else form(), tensors, subtract)

    return make


@pytest.fixture(scope="session")
def tokens_RT() -> Tensor:
    """Rows with and without BOS, with special tokens inside, in a run, at the end, and nothing but them."""
    tokens_RT = torch.randint(3, 300, (8, 11), generator=torch.Generator().manual_seed(4))
    tokens_RT[0, 0] = BOS
    tokens_RT[1, 0], tokens_RT[1, 5] = BOS, EOS
    tokens_RT[2, 3:5] = EOS
    tokens_RT[3, 0], tokens_RT[3, 6] = EOS, BOS
    tokens_RT[4, 7:] = PAD
    tokens_RT[5] = PAD  # nothing counts
    tokens_RT[6, 2:] = EOS  # one position counts, but not as a target
    return tokens_RT


@pytest.fixture(scope="session")
def text_file(llama_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of letters that follow each other as the model expects, so that ablating it costs something."""
    file = tmp_path_factory.mktemp("text") / "documents.jsonl"
    return as_expected(file, llama_folder)
