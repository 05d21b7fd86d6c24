"""What other programs saved gives here what it gives there; each format is written down anew in `foreign.py`."""

from pathlib import Path

import pytest
import torch

from sae_sweep.interop import load_sae
from tests.interop.foreign import FORMATS, activations


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_reconstructions(name: str, tmp_path: Path) -> None:
    save, answers = FORMATS[name]
    save(tmp_path)
    sae, x_BD = load_sae(tmp_path), activations()
    f_BF, x_hat_BD = answers(x_BD)
    assert 0 < (f_BF > 0).double().mean() < 0.9
    own_BF = sae.encode(x_BD)
    torch.testing.assert_close(own_BF, f_BF, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(own_BF, None, x_BD), x_hat_BD, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.coded(x_BD)[1], x_hat_BD, rtol=1e-5, atol=1e-5)


def test_a_format_of_one_file_is_read_by_its_path_too(tmp_path: Path) -> None:
    for name, file in (("openai", "6.pt"), ("circuit-tracer", "layer_3.safetensors")):
        (tmp_path / name).mkdir()
        FORMATS[name][0](tmp_path / name)
        assert torch.equal(
            load_sae(tmp_path / name / file).tensors["W_enc"], load_sae(tmp_path / name).tensors["W_enc"]
        )


def test_another_file_says_that_a_folder_is_wanted(tmp_path: Path) -> None:
    FORMATS["AutoEncoder"][0](tmp_path)
    with pytest.raises(ValueError, match="give a folder"):
        load_sae(tmp_path / "ae.pt")
