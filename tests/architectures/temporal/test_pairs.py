"""Neighbouring tokens: which activations of a block belong together, and what a temporal SAE learns from them."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.stream import BlockRows
from sae_sweep.architectures.maths import maths_of
from sae_sweep.cli import main
from sae_sweep.errors import ConfigError
from sae_sweep.interop import load_sae
from sae_sweep.kernels.entries import Room
from sae_sweep.kernels.rows import RowSums
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.saes import base, codes, decoding
from sae_sweep.saes.bank import Batch, Chunk, Gradients
from sae_sweep.saes.base import Before
from tests.architectures.options import member
from tests.device.padded import padded
from tests.kernels import interpreted
from tests.saes import reference, reference_topk
from tests.saes.problems import CLOCKS, COEFFICIENTS, VARIANCE, WIDTHS, gradient, problem
from tests.saes.test_losses import close

HOOK, OTHER = "here", "there"
OWN = ({"high_share": 0.2, "contrast": 0.5}, {"high_share": 0.5, "contrast": 0.0}, {"high_share": 0.7, "contrast": 3.0})


def rows(counted: list[str], seed: int = 0) -> BlockRows:
    """A block of rows in which the positions with an x count; a token is its row and position."""
    counted_RT = torch.tensor([[c == "x" for c in row] for row in counted])
    count, context = int(counted_RT.sum()), len(counted[0])
    tokens_RT = 100 * torch.arange(len(counted))[:, None] + torch.arange(context)
    places_B = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return BlockRows(0, tokens_RT, counted_RT, places_B)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_activation_at_the_position_before(seed: int) -> None:
    """Of the same row, and counted there; a row's first token has none, nor one after a gap."""
    made = rows(["xxx.x", ".xx.x", "..xxx"], seed)
    tokens_B, before_B = made.tokens_B, made.before_B
    found = {int(token): int(tokens_B[at]) for token, at in zip(tokens_B, before_B, strict=True) if at >= 0}
    assert found == {1: 0, 2: 1, 102: 101, 203: 202, 204: 203}
    assert int((before_B >= 0).sum()) == 5


def test_what_is_too_long_is_nobodys_predecessor() -> None:
    x_BD = torch.arange(6.0)[:, None]
    tokens, before_B = torch.arange(6), torch.tensor([-1, 0, 1, 2, -1, 4])
    inlier_B = torch.tensor([True, False, True, True, True, True])
    block = Block(0, 0, {HOOK: x_BD}, {HOOK: tokens}, inliers={HOOK: inlier_B}, before_B=before_B)
    own, _ = block.take([HOOK], slice(0, 5))
    others, there_B = block.take_before([HOOK], slice(0, 5))
    assert own[HOOK].flatten().tolist() == [0, 2, 3, 4, 5]
    assert there_B.tolist() == [False, False, True, False, True]
    assert others[HOOK].flatten()[there_B].tolist() == [2, 4]
    whole = replace(block, inliers={})
    assert whole.take_before([HOOK], slice(1, 3))[1].tolist() == [True, True]


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("dead", [False, True])
def test_losses_and_gradients(dead: bool, dense: bool) -> None:
    """Those of the paper written out, for members of other shares and coefficients."""
    made = problem("batchtopk", dead=dead)
    made.configs = [
        replace(member("temporal", **own).sae, k=c.k, l0=None, auxk=c.auxk, auxk_coefficient=c.auxk_coefficient)
        for own, c in zip(OWN, made.configs, strict=True)
    ]
    generator = torch.Generator().manual_seed(5)
    before_BD = made.x_BD + 0.5 * torch.randn(made.x_BD.shape, generator=generator, dtype=torch.float64)
    there_B = torch.rand(len(before_BD), generator=generator) < 0.7
    leaves, step = made.leaves(), replace(made.step(dense), before=Before(before_BD, there_B))
    losses = maths_of(made.configs[0]).losses(leaves, made.x_BD, made.x_BD[:, None], step)
    assert losses.auxiliary_M is not None
    start = 0
    for index, own in enumerate(OWN):
        p, config = reference.leaves(made.parameters[index]), made.configs[index]
        width = len(p["W_enc"])
        knobs = (made.dead[index], config.auxk, config.auxk_coefficient, VARIANCE)
        shares = (config.k, round(own["high_share"] * width), own["contrast"])
        terms = reference_topk.temporal(p, made.x_BD, before_BD, there_B, *shares, *knobs)
        assert close(losses.reconstruction_M[index], terms.reconstruction, 1e-10)
        assert close(losses.auxiliary_M[index], terms.auxiliary, 1e-10)
        expected = reference.gradients(p, terms.total(COEFFICIENTS[index]))
        total = losses.reconstruction_M[index] + losses.auxiliary_M[index]
        for name in ("W_enc", "b_enc", "W_dec"):
            found = gradient(total, leaves[name])[start : start + width]
            assert close(found, expected[name], 1e-10), name
        assert close(gradient(total, leaves["b_dec"])[index], expected["b_dec"], 1e-10)
        start += width


def test_both_products_with_the_encoder_pull_on_it_where_gradients_are_not_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where a gradient of W_enc is left as sums of rows: of the two there is room for one."""
    made = problem("batchtopk")
    own = zip(OWN, made.configs, strict=True)
    made.configs = [replace(member("temporal", **keys).sae, k=c.k, l0=None) for keys, c in own]
    there_B = torch.arange(len(made.x_BD)) % 3 > 0
    batch = Batch(made.x_BD, made.token_B, before=Before(made.x_BD.roll(1, 0) + 0.3, there_B))

    def gradients(chunk: Chunk) -> list[Gradients]:
        given = (made.coefficient_M, torch.cat(made.dead), VARIANCE, CLOCKS)
        return made.bank().gradients(batch, chunk, *given)[1]

    expected = gradients(Chunk(0, len(OWN), dense=True))
    padded(monkeypatch)
    monkeypatch.setattr(codes, "on_triton", lambda tensor: True)
    monkeypatch.setattr(decoding, "CROWDED", len(made.x_BD) + 1)  # or a kernel of a GPU's is asked
    monkeypatch.setattr(base, "encoder_of", interpreted._whole)
    room = Room(made.x_BD.shape[0] * sum(WIDTHS), torch.tensor(False))
    for found, theirs in zip(gradients(Chunk(0, len(OWN), False, room)), expected, strict=True):
        assert isinstance(found["W_enc"], RowSums)
        torch.testing.assert_close(interpreted._made(found["W_enc"]), theirs["W_enc"], rtol=1e-10, atol=1e-12)


def test_a_batch_without_pairs_has_no_contrast() -> None:
    made = problem("batchtopk")
    made.configs = [replace(member("temporal").sae, k=c.k, l0=None) for c in made.configs]
    step = replace(made.step(dense=False), before=Before(made.x_BD, torch.zeros(len(made.x_BD), dtype=torch.bool)))
    losses = maths_of(made.configs[0]).losses(made.leaves(), made.x_BD, made.x_BD[:, None], step)
    assert bool(losses.auxiliary_M.isfinite().all())


@pytest.mark.parametrize(
    ("keys", "words"), [({}, "data.kind=toy: sae=temporal is trained on tokens and those before them")]
)
def test_activations_without_order_are_refused(keys: Mapping[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan_sweep([member("temporal", **keys)])


def test_it_trains_on_a_models_tokens(llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("".join(f"{number} is followed by {number + 1}.\n" for number in range(3_000)))
    command = [
        *("name=mine", "tracking=none", "model=local", "model.device=cpu", f"model.path={llama_folder}", "data=text"),
        *(
            "data.path=text.txt",
            "data.context=16",
            "data.block_rows=64",
            "site.layer=1",
            "sae=temporal",
            "sae.width=48",
        ),
        *("training.tokens=4e3", "training.batch_size=128", "evaluation.tokens=320", "sae.l0=6"),
    ]
    assert main(command) == 0
    folder = tmp_path / "outputs" / "mine" / "temporal-l0_6-w48"
    metrics, cfg = (json.loads((folder / name).read_text()) for name in ("metrics.json", "cfg.json"))
    assert metrics["l0"] == pytest.approx(6, rel=0.3)
    assert cfg["architecture"] == "jumprelu"
    assert load_sae(folder).width == 48
    assert main([*command, "name=e2e", "training.objective=e2e"]) == 2
