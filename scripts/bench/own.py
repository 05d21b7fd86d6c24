"""A real trainer of ours on synthetic activations, trained for a while, whose next steps are timed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.optim.adam import adam

from sae_sweep.activations.block import Block
from sae_sweep.activations.scaling import site_statistics
from sae_sweep.activations.toy import ToyStream
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.model.sites import modelless_site
from sae_sweep.plan.groups import plan_sweep
from sae_sweep.saes.base import Parameters
from sae_sweep.training.step.calibration import Calibration
from sae_sweep.training.step.trainer import BankTrainer

ARCHITECTURES = (
    *("standard", "gated", "topk", "batchtopk", "jumprelu"),
    *("matryoshka", "p_anneal", "jumprelu_anthropic"),
)
HOOK = modelless_site("toy").hook
CONTEXT = 32
"""`data.context`: a block is so many times `data.block_rows`."""
BATCHES_PER_BLOCK = 4
SETTLING_STEPS = 20
"""After L0 was set: enough for the trainer to look at its density again and choose its route."""
HELD_LR = 1e-6
"""While being timed; what a step costs does not depend on it."""
MOVED = ("b_gate", "log_threshold", "b_enc")
"""The first of these that an architecture has sets its L0: a shift of all latents at once."""
SILENT = 2**40
"""Steps without firing that are too many for any window."""


@dataclass(frozen=True)
class Size:
    """The problem of the benchmark."""

    d: int
    width: int
    batch: int
    warm: int
    """Training steps before anything is timed."""
    rounds: int
    blocks: int
    """Blocks of synthetic activations, which training goes round."""
    lr: float
    device: torch.device

    @property
    def steps(self) -> int:
        """Of the whole run as its schedules see it: what is timed comes after steering has ended."""
        return max(self.warm * 5 // 4, self.warm + SETTLING_STEPS + self.rounds) + 10

    @property
    def data(self) -> "Size":
        """What the activations depend on: the rest as for no training at all."""
        return replace(self, width=self.d, warm=0, rounds=0, lr=1.0)


def configured(overrides: Sequence[str]) -> MemberConfig:
    """The config of one member, as the command line would make it."""
    return config_of(overrides)


def member(sae: str, l0: float, size: Size, seed: int = 0) -> MemberConfig:
    """A member on synthetic activations of more true latents than there are dimensions."""
    return configured(
        [
            *(f"sae={sae}", f"sae.width={size.width}", f"sae.l0={l0:g}", "tracking=none", "data=toy"),
            *(f"data.toy.dimensions={size.d}", f"data.toy.latents={4 * size.d}", "data.toy.correlated=false"),
            *(f"data.toy.active={min(64, size.d)}", "data.toy.decay=0.999", "data.toy.noise=0.01"),
            *(f"data.context={CONTEXT}", f"data.block_rows={-(-BATCHES_PER_BLOCK * size.batch // CONTEXT)}"),
            *(f"training.batch_size={size.batch}", f"training.tokens={size.steps * size.batch}"),
            *(f"training.lr={size.lr:g}", f"model.device={size.device}", f"seed={seed}"),
        ]
    )


@cache
def blocks(size: Size) -> list[Block]:
    """The activations all architectures are trained on; ask by `size.data`."""
    stream = ToyStream(member("topk", 1, size).data, torch.float32, size.device)
    return [stream.block(index) for index in range(size.blocks)]


class Own:
    """Members of one architecture, of different seeds, after `size.warm` steps, their L0 near what was asked for."""

    def __init__(self, sae: str, l0: float, size: Size, members: int = 1, settle: bool = True) -> None:
        """Without `settle` they are as `size.warm` steps left them."""
        self.size, self.members = size, members
        plan = plan_sweep([member(sae, l0, size, seed) for seed in range(members)]).groups[0].banks[0]
        self.config = plan.members[0].config
        made = blocks(size.data)
        statistics = site_statistics(made[0], centred=self.config.sae.centre)[HOOK]
        calibration = Calibration((statistics,), size.device, torch.float32)
        self.trainer = BankTrainer(plan, calibration)
        first = made[0]
        rows = [slice(i * size.batch, (i + 1) * size.batch) for i in range(BATCHES_PER_BLOCK)]
        self._numbers = count()
        self._batches = [_part(block, part) for block in made for part in rows]
        self.inputs = [self.trainer.trained.inputs.scales[0] * first.activations[HOOK][part] for part in rows]
        """Some batches [B, D] as the encoder sees them: also what the peers are given."""
        self.train(0, size.warm)
        if settle:
            for index in range(members):
                self._settle(index, l0)
            self.train(size.warm, SETTLING_STEPS)

    def train(self, first: int, steps: int) -> None:
        """Take so many steps, the first of them on the batch of that number."""
        for index in range(first, first + steps):
            self.step(index)

    def step(self, index: int) -> None:
        """One whole training step: scaling, losses, gradients, Adam, steering, dead counters."""
        batch = replace(self._batches[index % len(self._batches)], index=next(self._numbers))  # each a block of its own
        self.trainer.consume(batch, lambda: None)

    def silence(self, share: float) -> None:
        """Count the first `share` of the first member's latents as dead, and no other."""
        self.trainer.trained.silent_F.zero_()
        self.trainer.trained.silent_F[: round(share * self.size.width)] = SILENT

    def parameters(self, index: int = 0) -> Parameters:
        """Of one member, by our names: W_enc and W_dec [F, D], b_dec [D], the rest [F]."""
        return self.trainer.bank.member(self.trainer.bank.storage, index)

    @property
    def coefficient(self) -> float:
        """In force, in the unit of the optimised loss; 0 where nothing is penalised."""
        value = float(self.trainer.trained.coefficients.value_M[0])
        return value if self.config.sae.coefficient() is not None else 0.0

    @property
    def dense(self) -> bool:
        """Whether the trainer takes the dense route."""
        return self.trainer.members[0].dense

    def l0(self, index: int = 0) -> float:
        """Of one member on the first batch, now."""
        x_BD = self._batches[0].activations[HOOK]
        f_BF = self.trainer.members[index].inference().encode(x_BD.float(), self._batches[0].tokens[HOOK])
        return float((f_BF > 0).sum()) / len(f_BF)

    def _settle(self, index: int, target: float) -> None:
        """A short run may end far from its L0: shift it there, since that is what a sparse step costs by. From then
        on lr is next to nothing, so that all is timed at that place."""
        own = self.parameters(index)
        name = next(name for name in MOVED if name in own)
        if self.config.sae.coefficient() is not None and not 0.9 < self.l0(index) / target < 1.1:
            moved_F, sign = own[name], 1 if name == "log_threshold" else -1
            start_F, low, high = moved_F.clone(), -20.0, 20.0
            for _ in range(30):
                shift = (low + high) / 2
                moved_F.copy_(start_F + sign * shift)
                low, high = (shift, high) if self.l0(index) > target else (low, shift)
        held = self.trainer.members[index]
        held.plan = replace(held.plan, schedule=replace(held.plan.schedule, lr=HELD_LR))

    def save(self, folder: Path) -> None:
        """What a peer needs to stand at the same place: `weights.safetensors` and `batches.safetensors`."""
        tensors = {name: t.detach().float().cpu().contiguous() for name, t in self.parameters().items()}
        save_file(tensors, folder / "weights.safetensors")
        save_file({str(i): x.cpu().contiguous() for i, x in enumerate(self.inputs)}, folder / "batches.safetensors")


def _part(block: Block, rows: slice) -> Block:
    return Block(block.index, block.epoch, {HOOK: block.activations[HOOK][rows]}, {HOOK: block.tokens[HOOK][rows]})


class AdamTraffic:
    """One fused Adam update of as many numbers as a member has: what no step can do without."""

    def __init__(self, parameters: Parameters) -> None:
        self._weights = [t.clone() for t in parameters.values()]
        self._gradients = [torch.randn_like(t) for t in self._weights]
        self._first, self._second = ([torch.zeros_like(t) for t in self._weights] for _ in range(2))

    def __call__(self) -> None:
        device = self._weights[0].device
        adam(
            *(self._weights, self._gradients, self._first, self._second, []),
            [torch.tensor(10.0, device=device) for _ in self._weights],
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=1e-3,
            weight_decay=0.0,
            eps=1e-8,
            maximize=False,
        )


class EncoderProduct:
    """x W_enc^T + b alone, in the shapes of a step."""

    def __init__(self, parameters: Parameters, inputs: Sequence[Tensor]) -> None:
        self._W_enc = parameters["W_enc"].clone()
        self._bias_F = torch.zeros(len(self._W_enc), dtype=self._W_enc.dtype, device=self._W_enc.device)
        self._inputs = inputs

    def __call__(self, index: int) -> None:
        torch.addmm(self._bias_F, self._inputs[index % len(self._inputs)], self._W_enc.T)
