"""Model classes by site kinds: equal to what Hugging Face's own modules compute, or refused in a line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sae_sweep.config.schema import ModelConfig
from sae_sweep.errors import ConfigError
from sae_sweep.folder.files import write_json_atomic
from sae_sweep.model.harvest import harvest
from sae_sweep.model.head import logits
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.model.parting import Parting
from sae_sweep.model.sites import HOOK_OF_KIND
from sae_sweep.model.suffix import Suffix
from sae_sweep.model.within import within_documents
from tests.model.families import CHEAP, FAMILIES, Reference, save

Config = Callable[..., ModelConfig]
OUT = Path(__file__).parents[1] / "evidence" / "models.json"
UNLIKE = ("resid_mid", "router")
"""Kinds that one plain hook cannot replace: the residual stream goes round it, and scores follow from logits."""


@pytest.fixture(scope="module")
def ids_RT() -> Tensor:
    return torch.randint(3, 260, (2, 11), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", CHEAP)
def test_sites_are_hugging_faces_own_or_refused(
    name: str, tmp_path: Path, model_config: Config, ids_RT: Tensor
) -> None:
    checked(name, tmp_path, model_config, ids_RT)


@pytest.mark.evidence
def test_every_family(tmp_path: Path, model_config: Config, ids_RT: Tensor) -> None:
    found = {name: checked(name, tmp_path / str(n), model_config, ids_RT) for n, name in enumerate(FAMILIES)}
    assert all("\n" not in str(each["documents"]) for each in found.values())
    write_json_atomic(OUT, found)
    told = json.loads(OUT.read_text())
    assert {name: list(each["sites"]) for name, each in told.items()} == {name: list(HOOK_OF_KIND) for name in FAMILIES}


@pytest.mark.parametrize("name", ["Mamba", "GLM-4.5, experts"])
def test_half_precision_has_the_same_sites(name: str, tmp_path: Path, model_config: Config) -> None:
    """Mamba's residual stream is float32 all the same, and so are the router's logits."""
    path, family = save(FAMILIES[name], tmp_path), FAMILIES[name]
    model = load_model(model_config(path, dtype="bfloat16"))
    for kind, end in HOOK_OF_KIND.items():
        if family.place(kind, 1) is None:
            with pytest.raises(ConfigError):
                Suffix(model, [f"blocks.1.{end}"])
        else:
            Suffix(model, [f"blocks.1.{end}"])


def checked(name: str, folder: Path, model_config: Config, ids_RT: Tensor) -> dict[str, object]:
    """What was found of a family: by kind, `equal`, or why it is refused; of blocks that differ, in which."""
    family = FAMILIES[name]
    path = save(family, folder)
    model, reference = load_model(model_config(path, dtype="float64")), Reference(family, path)
    whole_RTV = reference.logits(ids_RT)[0]
    found: dict[str, dict[int, str]] = {kind: {} for kind in HOOK_OF_KIND}
    for layer in range(2):
        for kind, end in HOOK_OF_KIND.items():
            place, hook = family.place(kind, layer), f"blocks.{layer}.{end}"
            if place is None:
                with pytest.raises(ConfigError) as refusal:
                    harvest(model, ids_RT, [hook])
                assert "\n" not in str(refusal.value), (name, hook)
                found[kind][layer] = str(refusal.value)
            else:
                site_is_equal(model, reference, ids_RT, whole_RTV, (kind, layer, hook, place))
                found[kind][layer] = "equal"
    sites = {kind: _told(by) for kind, by in found.items()}
    return {"class": type(model.module).__name__, "sites": sites, "documents": _documents(model, ids_RT)}


def _documents(model: LanguageModel, ids_RT: Tensor) -> str:
    """Whether two documents of a row give what each gives alone (`data.attention=document`), or why it is refused."""
    cut, rows_RT = 5, ids_RT.clone()
    rows_RT[:, [0, cut]] = 1
    try:
        within = within_documents(model, Parting(1, 0))
    except ConfigError as refusal:
        return str(refusal)
    alone_RTD = torch.cat([model.final_hidden(part) for part in (rows_RT[:, :cut], rows_RT[:, cut:])], dim=1)
    torch.testing.assert_close(
        within.final_hidden(rows_RT), alone_RTD, rtol=0, atol=1e-6
    )  # some have a softmax in float32
    return "equal"


def _told(by_layer: dict[int, str]) -> str:
    """`equal`, `equal in some blocks` and why not in the others, or why in none."""
    refused = [told for told in by_layer.values() if told != "equal"]
    return "equal" if not refused else refused[0] if len(refused) > 1 else f"equal in some blocks; {refused[0]}"


def site_is_equal(
    model: LanguageModel, reference: Reference, ids_RT: Tensor, whole_RTV: Tensor, site: tuple[str, int, str, str]
) -> None:
    kind, layer, hook, place = site
    whole_NV, expected = reference.logits(ids_RT, place, layer)
    value = harvest(model, ids_RT, [hook])[hook]
    assert torch.equal(whole_NV, whole_RTV)
    torch.testing.assert_close(value, expected, rtol=0, atol=1e-12, msg=lambda m: f"{hook}: {m}")
    suffix = Suffix(model, [hook])
    clean = suffix.clean(ids_RT)
    with torch.no_grad():
        again = _logits(model, suffix.run(hook, clean, clean.activations[hook]), whole_RTV)
        torch.testing.assert_close(again, whole_RTV, rtol=0, atol=1e-9, msg=lambda m: f"{hook}: {m}")
        noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=value.dtype)
        other = _logits(model, suffix.run(hook, clean, noise), whole_RTV)
    assert (other - whole_RTV).abs().max() > 1e-4, hook
    if kind not in UNLIKE:
        spliced = reference.logits(ids_RT, place, layer, noise)[0]
        torch.testing.assert_close(other, spliced, rtol=0, atol=1e-9, msg=lambda m: f"{hook}: {m}")


def _logits(model: LanguageModel, final_RTD: Tensor, like_RTV: Tensor) -> Tensor:
    """In float32 where the class makes its own so."""
    return logits(model, final_RTD.flatten(0, 1)).view(like_RTV.shape).to(like_RTV.dtype)
