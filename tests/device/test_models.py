"""The language model and what runs it on a fake GPU: harvesting, and steps of objectives that splice into it."""

from collections import Counter
from typing import Any

import pytest
import torch

from sae_sweep.activations.block import Block
from sae_sweep.activations.sequences import Sequences
from sae_sweep.activations.stream import ActivationStream, BlockRows
from sae_sweep.config.files import config_of
from sae_sweep.model.harvest import harvest
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.suffix import CleanPass
from sae_sweep.plan.groups import BankPlan
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.objectives import EndToEnd, Splicing
from sae_sweep.training.step.trainer import BankTrainer
from scripts.bench.fake.device import DEVICE, fake_cuda
from scripts.bench.fake.trainers import SITE, member, statistics
from tests.device.kinds import WIDTH, knobs
from tests.device.models import on_fake, real_model
from tests.training.fabricate import SAE

ROWS, CONTEXT, STEPS = 4, 16, 3
COUNTED = 24
"""Positions of the rows of a step that count, and that have a target."""
LATER = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return real_model()


def test_harvesting_waits_for_nothing(model: LanguageModel) -> None:
    """But for the one look, when a block is whole, at whether it is finite."""
    hooks = ("blocks.0.hook_mlp_out", "blocks.1.hook_resid_post")
    finite = {"activations/finite:check_finite": True}
    with fake_cuda(entries=lambda mask: COUNTED, item=finite.get) as log, on_fake(model) as there:
        stream = object.__new__(ActivationStream)
        vars(stream).update(_model=there, _rows_per_forward=ROWS, _harvest=harvest, _read=lambda index, share: None)
        tokens_RT = torch.zeros(2 * ROWS, CONTEXT, dtype=torch.int64)
        rows = BlockRows(0, tokens_RT, tokens_RT > 0, torch.zeros(2 * COUNTED, dtype=torch.int64))
        log.clear()
        found = stream._gather(rows, hooks)
        assert all(x_BD.is_cuda and len(x_BD) == 2 * COUNTED for x_BD in found.values())
        assert {wait.rpartition(" at ")[2] for wait in log.waits} <= {"activations/finite:check_finite"}
        assert log.waits.total() <= len(hooks)
        assert not log.atomics


@pytest.mark.parametrize(
    ("objective", "kind"),
    [
        ("e2e_downstream", "topk"),
        *(pytest.param(each, "gated", marks=pytest.mark.evidence) for each in ("e2e", "kl_mse")),
    ],
)
def test_a_plain_step_of_an_end_to_end_objective_waits_for_nothing(
    objective: str, kind: str, model: LanguageModel
) -> None:
    found: list[tuple[Counter[str], Counter[str]]] = []
    hooks = [SITE.hook, LATER]
    splicing = Splicing(model, hooks, ROWS)
    data = config_of([]).data
    said = {"training/step/objectives:terms": COUNTED, "training/step/trainer:_look_at": 0}
    said["activations/sequences:counting"] = True  # on the CPU: every row has something that counts
    with fake_cuda(entries=lambda mask: COUNTED, item=said.get) as log, on_fake(model) as there:
        splicing.model = splicing.suffix.model = there
        d = there.facts.d_model
        own: dict[str, Any] = {"training_objective": objective, "training_batch_size": ROWS * data.context}
        own |= {"sae_width": WIDTH, "training_tokens": 4000.0 * ROWS * data.context, **knobs(kind, l0=False)}
        plan = member(d, SAE[kind], kind, **own)
        later = [LATER] if objective == "e2e_downstream" else []
        made = EndToEnd(splicing, SITE.hook, later, plan.config.training, ROWS)
        calibration = Calibration((statistics(d, False),), DEVICE, torch.float32, end_to_end=made)
        trainer = BankTrainer(BankPlan(SITE, (plan,)), calibration)
        log.clear()

        def after() -> None:
            found.append((Counter(log.waits), Counter(log.atomics)))
            log.clear()

        trainer.consume(_block(there, STEPS * ROWS), after)
    first, second, third = found
    assert first[0], "the first is looked at"
    assert not second[0]
    assert not third[0]
    assert not (first[1] + second[1] + third[1])


def _block(model: LanguageModel, rows: int) -> Block:
    """Rows as a clean pass left them."""
    d, shape = model.facts.d_model, (rows, CONTEXT)
    dtype = next(model.module.parameters()).dtype
    states = {hook: torch.zeros(*shape, d, dtype=dtype, device=DEVICE) for hook in (SITE.hook, LATER)}
    final_RTD = torch.zeros(*shape, d, dtype=dtype, device=DEVICE)
    clean = CleanPass(torch.zeros(shape, dtype=torch.int64, device=DEVICE), states, final_RTD)
    mask_RT = torch.ones(shape, dtype=torch.bool)
    return Block(0, 0, {}, {}, Sequences(clean, mask_RT, mask_RT))
