"""A model over two GPUs (`model.device_map`): every way by which a tensor goes into it or comes out, on fake ones."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, MixtralConfig

from sae_sweep.api.positions import Reading, following
from sae_sweep.config.files import config_of
from sae_sweep.evaluation.splice import measured
from sae_sweep.evaluation.tiles import kl_and_gradient
from sae_sweep.model.harvest import harvest
from sae_sweep.model.head import check_head
from sae_sweep.model.intervene import changing
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import load_model
from sae_sweep.model.mapping import map_blocks
from sae_sweep.model.parting import Parting
from sae_sweep.model.sites import HOOK_OF_KIND, parse_hook
from sae_sweep.model.suffix import Suffix
from sae_sweep.model.within import WithinDocuments
from sae_sweep.plan import constants
from scripts.bench.fake.device import DEVICE, fake_cuda
from scripts.bench.fake.log import Log
from tests.device.two import SECOND, halves, on_two

KINDS = tuple(kind for kind in HOOK_OF_KIND if kind not in ("router", "experts_out"))
HOOKS = [f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for layer in range(2) for kind in KINDS]
TRUE = {f"model/{place}": True for place in ("blocks:close", "mapping:_is_sum")}
"""What numbers would say."""
PLACES = (0, "mlp_out"), (1, "attn_z"), (1, "resid_post")


@pytest.fixture(scope="module")
def real(build_model: Callable[..., Path]) -> LanguageModel:
    """Of two blocks, one for each GPU."""
    folder = build_model("two", LlamaConfig, num_key_value_heads=2, num_hidden_layers=2)
    return load_model(config_of({"model": "local", "model.path": str(folder), "model.device": "cpu"}).model)


@pytest.fixture(scope="module")
def suffix(real: LanguageModel) -> Suffix:
    """Which has looked at numbers."""
    return Suffix(real, HOOKS)


@pytest.fixture(params=[False, True], ids=["last half", "first half"])
def two(
    request: pytest.FixtureRequest, real: LanguageModel, suffix: Suffix
) -> Iterator[tuple[LanguageModel, Log, list[str]]]:
    """The model with a half on the second GPU, and hooks of it: those there, and what the other block ends in. Members
    are on the first."""
    with fake_cuda(item=TRUE.get) as log, on_two(real, halves(real, first=request.param)) as there:
        assert {parameter.device for parameter in there.module.parameters()} == {DEVICE, SECOND}
        log.clear()
        suffix.model = there
        there_alone = [hook for hook in HOOKS if (parse_hook(hook).layer == 0) == request.param]
        yield there, log, [*there_alone, f"blocks.{int(request.param)}.{HOOK_OF_KIND['resid_post']}"]


def tokens() -> Tensor:
    return torch.zeros(2, 6, dtype=torch.int64, device=DEVICE)


def test_activations_come_to_the_members(two: tuple[LanguageModel, Log, list[str]]) -> None:
    there, log, hooks = two
    found = harvest(there, tokens(), hooks)
    assert {x_RTd.device for x_RTd in found.values()} == {DEVICE}
    assert there.final_hidden(tokens()).device == DEVICE
    assert not log.waits


def test_documents_are_parted_where_tokens_are_read(two: tuple[LanguageModel, Log, list[str]]) -> None:
    """By positions, and by a mask."""
    there, _, _ = two
    for windows in (None, {"": None}):
        within = WithinDocuments(Parting(1, 0), windows, torch.float32)
        assert replace(there, within=within).final_hidden(tokens()).device == DEVICE


def test_its_parts_and_its_head_are_measured(
    two: tuple[LanguageModel, Log, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _, _ = two
    monkeypatch.setattr(torch, "equal", lambda *_: False)  # so that logits are not the head's product alone
    found = map_blocks(there.module, there.facts.n_layers, lambda: there.final_hidden(tokens()))
    assert all(block.plain and not block.parallel for block in found.blocks)
    unknown = replace(there, lm_head=None, tiled=False)
    check_head(unknown, tokens())
    assert (unknown.lm_head, unknown.tiled) == (None, True)


def test_it_goes_on_from_each_site_and_back(two: tuple[LanguageModel, Log, list[str]], suffix: Suffix) -> None:
    _, _, hooks = two
    clean = suffix.clean(tokens())
    for hook in hooks:
        value_RTd = torch.zeros_like(clean.activations[hook]).requires_grad_()
        final_RTD = suffix.run(hook, clean, value_RTd)
        (gradient_RTd,) = torch.autograd.grad(final_RTD, value_RTd, torch.ones_like(final_RTD))
        assert final_RTD.device == gradient_RTd.device == DEVICE


@pytest.mark.parametrize("first", [False, True])
def test_experts(first: bool, build_model: Callable[..., Path]) -> None:
    """What they write, and what sends tokens to them, in both blocks."""
    folder = build_model("experts", MixtralConfig, num_key_value_heads=2, num_hidden_layers=2)
    real = load_model(config_of({"model": "local", "model.path": str(folder), "model.device": "cpu"}).model)
    real.module.set_experts_implementation("batched_mm")  # type: ignore[operator]
    suffix = Suffix(real, [f"blocks.{n}.{HOOK_OF_KIND[kind]}" for n in (0, 1) for kind in ("router", "experts_out")])
    with fake_cuda(), on_two(real, halves(real, first=first)) as there:
        suffix.model = there
        clean = suffix.clean(tokens())
        for hook in suffix.sites:
            assert suffix.run(hook, clean, torch.zeros_like(clean.activations[hook])).device == DEVICE


@pytest.mark.usefixtures("two")
def test_sites_of_both_halves_are_replaced_together(suffix: Suffix) -> None:
    first, last, later = (f"blocks.{layer}.{HOOK_OF_KIND[kind]}" for layer, kind in PLACES)
    clean = suffix.clean(tokens())
    values = {hook: torch.zeros_like(clean.activations[hook]) for hook in (first, last)}
    final_RTD, found = suffix.run_together(clean, values, torch.ones_like(tokens(), dtype=torch.bool), [later])
    assert final_RTD.device == found[later].device == DEVICE


def test_what_is_put_in_is_given_and_taken_on_the_members_device(two: tuple[LanguageModel, Log, list[str]]) -> None:
    there, _, hooks = two
    given: list[Tensor] = []

    for hook in hooks:
        with following(there) as reading:

            def change(live_RTd: Tensor, reading: Reading = reading) -> Tensor:
                given.append(live_RTd)
                return reading.where_counted(live_RTd + torch.ones_like(live_RTd), live_RTd)

            with changing(there, parse_hook(hook), change):
                assert there.final_hidden(tokens()).device == DEVICE
    assert len(given) == len(hooks)
    assert {live_RTd.device for live_RTd in given} == {DEVICE}


@pytest.mark.parametrize("tiles", [1, 4])
def test_losses_of_a_head_that_is_elsewhere(
    two: tuple[LanguageModel, Log, list[str]], tiles: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, _, _ = two
    monkeypatch.setitem(constants.TILE_TOKENS, "cuda", -(-there.facts.vocab_size // tiles))
    hidden_ND = torch.zeros(5, there.facts.d_model, device=DEVICE)
    losses = measured(there, hidden_ND, [hidden_ND], torch.zeros(5, dtype=torch.int64, device=DEVICE))
    kl, gradient_ND = kl_and_gradient(there, hidden_ND, hidden_ND)
    assert losses.device == kl.device == gradient_ND.device == DEVICE
    assert (losses.shape, gradient_ND.shape) == ((2, 2, 5), hidden_ND.shape)
