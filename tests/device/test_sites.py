"""Steps of members of every kind of site on a fake GPU: transcoders, crosscoders, and those of several layers."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.model.sites import Site
from sae_sweep.plan.groups import BankPlan
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.device import DEVICE, fake_cuda
from scripts.bench.fake.trainers import SITE, member, statistics
from tests.device.kinds import BATCH, STEERED, WIDTH, D, knobs
from tests.training.fabricate import SAE

OTHER = Site("resid_post", 1, "blocks.1.hook_resid_post")
OUTPUT, D_OUT = Site("mlp_out", 0, "blocks.0.hook_mlp_out"), 6
TRANSCODER, CROSSCODER = replace(SITE, output=OUTPUT), replace(SITE, beside=(OTHER,))
LAST = replace(OTHER, output=Site("mlp_out", 1, "blocks.1.hook_mlp_out"))
CROSS_LAYER = replace(TRANSCODER, beside=(LAST,))
CASES = [("gated", TRANSCODER), ("batchtopk", CROSSCODER), ("batchtopk", CROSS_LAYER)]
OTHERS = ("standard", "topk", "jumprelu", "jumprelu_anthropic", "matryoshka", "p_anneal")
SLOW = [pytest.param(kind, site, marks=pytest.mark.evidence) for kind in OTHERS for site in (TRANSCODER, CROSSCODER)]
SLOW += [
    pytest.param(kind, CROSS_LAYER, marks=pytest.mark.evidence) for kind in ("topk", "gated", "jumprelu_anthropic")
]
STEPS = 3


def notes(kind: str, site: Site, *, centred: bool = False, **keys: object) -> list[tuple[Counter[str], Counter[str]]]:
    """Waits and unordered sums of each of the first steps."""
    widths = dict.fromkeys(site.reads, D) | (dict.fromkeys(site.writes, D_OUT) if site.output else {})
    found: list[tuple[Counter[str], Counter[str]]] = []
    with fake_cuda(item={"training/step/trainer:_look_at": 0}.get) as log:
        own = {"sae_width": WIDTH, "training_batch_size": BATCH, "training_tokens": BATCH * 4000.0}
        own |= {"sae_b_dec_init": "zero", **keys}  # a median takes longer than the steps
        wide = D * (1 + len(site.beside))
        plan = member(wide, SAE[kind], kind, **own, **knobs(kind, l0=kind in STEERED))
        plan = replace(plan, site=site, d=wide, d_out=D_OUT * len(site.places) if site.output else wide)
        targets = (statistics(D_OUT, centred),) * len(site.places) if site.output else ()
        read = (statistics(D, centred),) * (1 + len(site.beside))
        trainer = BankTrainer(BankPlan(site, (plan,)), Calibration(read, DEVICE, torch.float32, targets))
        tokens_B = torch.zeros(BATCH * STEPS, dtype=torch.int64, device=DEVICE)
        activations = {
            hook: torch.randn(len(tokens_B), d, dtype=torch.bfloat16, device=DEVICE) for hook, d in widths.items()
        }
        log.clear()

        def after() -> None:
            found.append((Counter(log.waits), Counter(log.atomics)))
            log.clear()

        trainer.consume(Block(0, 0, activations, dict.fromkeys(activations, tokens_B)), after)
    return found


@pytest.mark.parametrize(("kind", "site"), [*CASES, *SLOW])
def test_a_plain_step_waits_for_nothing(kind: str, site: Site) -> None:
    first, second, third = notes(kind, site)
    assert first[0], "the first is looked at"
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


def test_nor_with_a_skip_about_a_mean() -> None:
    _, second, third = notes("standard", TRANSCODER, centred=True, sae_skip=True, sae_centre=True)
    assert not (second[0] + third[0])
