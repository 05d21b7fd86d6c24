"""What the sweep benchmark trains: an architecture's members, the same on every side."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sae_sweep.config.schema import DataConfig
from scripts.bench.language_model import LanguageModel

OURS, SAELENS, DICTIONARY = "ours", "sae-lens", "dictionary_learning"
SIDES = (OURS, SAELENS, DICTIONARY)
NORM_BATCHES = 32
"""Batches from which sae-lens estimates the inputs' norm; our calibration block is about as many activations."""
WARMUP_SHARE = 20
"""Warm-ups, of lr and of the sparsity coefficient, are 1 / 20 of the run on all sides; but our jumprelu has no such
coefficient."""
FALL_SHARE = 3
"""Our jumprelu's target falls during 1 / 3 of the run at most; its recipe is a quarter, with which it was 0.0004 below
sae-lens's at L0 14."""
SAME_LOSS = {
    "standard": "standard_april",
    "gated": "gated_decoder_norm",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "jumprelu": "jumprelu",
}
"""Our recipe with sae-lens's loss: a coefficient means the same on both sides."""
SAME_ADAM = {
    "topk": ("training.clip=1",),
    "batchtopk": ("training.clip=1",),
    **dict.fromkeys(("gated_decoder_norm", "jumprelu"), ("training.beta1=0.9", "training.clip=1")),
}
"""Where a recipe's Adam is another than sae-lens's, what makes it the same. Gradients are largest in the first steps,
and without a limit they hold back a short run until its end."""
SAME_START = {
    **dict.fromkeys(("topk", "batchtopk"), ("sae.encoder_init=transpose",)),
    "gated_decoder_norm": ("sae.b_dec_init=zero",),
    "jumprelu": ("sae.free_decoder=true",),
}
"""sae-lens starts from the decoder's transpose. Ours scales it until first reconstructions are as large as the inputs,
which is worth little at small k and costs 0.002 of CE recovered where k is near d (48 of 64, 4M tokens). Its decoder
bias starts at 0, ours of gated at the mean input, which is 0.005 worse at L0 2. Its jumprelu's decoder rows may have
any norm, ours by default have the paper's norm of 1: three seeds are on average 0.0013 worse at L0 4, and from 0.0003
worse to 0.0002 better from 8 to 48."""
BANDWIDTH = 0.5
"""Of the peers' jumprelu kernels, for inputs of mean norm sqrt(d). sae-lens's is 0.05, with which its frontier is about
the same (a little better at high L0). Ours by default is meant for smaller inputs and 300k steps; here it follows from
the L0 that a member aims at: 0.6 to 2."""
PAPERS = {name: name for name in SAME_LOSS}
K = (4, 6, 8, 12, 16, 24, 32, 48)
"""Below d: as many latents as there are dimensions can copy the input. With k 64 and 96 ours was 0.001 below
sae-lens's topk."""
VALUES: Mapping[str, tuple[float, ...]] = {
    "standard": (0.4, 0.6, 0.9, 1.4, 2.0, 3.0, 4.5, 7.0),
    "gated": (1.0, 1.5, 2.2, 3.2, 4.0, 5.0, 6.0, 7.5),
    **dict.fromkeys(("topk", "batchtopk", "jumprelu"), K),
}
"""Of the knob: L0s of about 3 to 50 in a model of d 64."""
L0_COEFFICIENTS = (0.002, 0.006, 0.02, 0.06, 0.2, 0.6, 2.0, 6.0)
"""sae-lens's jumprelu, which aims at no L0, and whose L0 hardly answers to the larger of these."""
KNOBS = {"standard": "l1", "gated": "l1", "topk": "k", "batchtopk": "k", "jumprelu": "l0"}
"""`sae.KNOB` of our command."""


@dataclass(frozen=True)
class Members:
    """One side's members: a value of the knob each."""

    knob: str
    values: tuple[float, ...]

    def few(self, count: int) -> "Members":
        """The middle ones."""
        first = (len(self.values) - count) // 2
        return replace(self, values=self.values[first : first + count])

    def named(self) -> dict[str, float]:
        """Values by the member's name; whole ones as int, since a k must be one."""
        return {f"{self.knob}_{v:g}": int(v) if v == int(v) else v for v in self.values}


@dataclass(frozen=True)
class Sweep:
    """One architecture's members, and how they are trained on every side."""

    architecture: str
    recipe: str
    """Our name of it: `sae=`."""
    members: Mapping[str, Members]
    """By side. l1 is in the unit of inputs scaled to a mean norm of sqrt(d)."""
    width: int
    tokens: int
    batch: int
    lr: float
    decay: float
    model: LanguageModel
    text: Path | None
    """To read; None is the demo's."""
    evaluation_tokens: float
    device: str
    seed: int

    @property
    def steps(self) -> int:
        return self.tokens // self.batch

    @property
    def hook(self) -> str:
        return f"blocks.{self.model.layer}.hook_resid_post"

    def few(self, count: int) -> "Sweep":
        """The same with fewer members."""
        return replace(self, members={side: own.few(count) for side, own in self.members.items()})

    def entry(self) -> dict[str, Any]:
        """The settings, in JSON's types."""
        model = {"model": self.model.folder.name, "layer": self.model.layer, "d": self.model.d}
        settings = {**asdict(self), **model, "text": self.text and self.text.name}
        return dict(json.loads(json.dumps(settings)))

    def input_scale(self, side: str) -> str:
        """dictionary_learning's jumprelu has thresholds from 1e-3 and a kernel as wide, which are for unit inputs."""
        return "unit" if self.architecture == "jumprelu" and side == DICTIONARY else "sqrt_d"

    def overrides(self, name: str, output: Path) -> list[str]:
        """What follows `sae-sweep` on the command line."""
        warmup, members = self.steps // WARMUP_SHARE, self.members[OURS]
        values = ",".join(f"{value:g}" for value in members.values)
        own_target = self.architecture == "jumprelu"
        sparsity = [f"training.sparsity_warmup_steps={self.steps // FALL_SHARE if own_target else warmup}"]
        bandwidth = ["sae.bandwidth=null"] if own_target else []
        data = ["data=demo"] if self.text is None else ["data=text", f"data.path={self.text.resolve()}"]
        return [
            *(f"name={name}", f"output_dir={output}", "tracking=none"),
            *(*self.model.overrides, f"model.device={self.device}"),
            *(*data, "site=resid_post", f"site.layer={self.model.layer}"),
            *(f"sae={self.recipe}", f"sae.{members.knob}={values}", f"sae.width={self.width}"),
            *(f"sae.input_scale={self.input_scale(OURS)}", *bandwidth, *sparsity),
            *(f"training.tokens={self.steps * self.batch}", f"training.batch_size={self.batch}"),
            *(f"training.lr={self.lr:g}", f"training.lr_warmup_steps={warmup}"),
            f"training.lr_decay_fraction={self.decay:g}",
            *(*SAME_START.get(self.recipe, ()), *SAME_ADAM.get(self.recipe, ())),
            *(f"evaluation.tokens={self.evaluation_tokens:g}", f"seed={self.seed}"),
        ]

    def request(self, side: str, data: DataConfig) -> dict[str, Any]:
        """What a peer's script is asked for: the same as our overrides say."""
        warmup = self.steps // WARMUP_SHARE
        return {
            "architecture": self.architecture,
            "members": self.members[side].named(),
            "d": self.model.d,
            "width": self.width,
            "input_scale": self.input_scale(side),
            "bandwidth": BANDWIDTH,
            "norm_batches": NORM_BATCHES,
            "model": str(self.model.folder),
            "module": f"model.layers.{self.model.layer}",
            "layer": self.model.layer,
            "context": data.context,
            "block_rows": data.block_rows,
            "rows_per_forward": data.rows_per_forward,
            "tokens": self.tokens,
            "batch": self.batch,
            "lr": self.lr,
            "lr_warmup_steps": warmup,
            "lr_decay_steps": round(self.decay * self.steps),
            "sparsity_warmup_steps": warmup,
            "seed": self.seed,
            "device": self.device,
        }


def members(architecture: str, values: tuple[float, ...], l0_coefficients: tuple[float, ...]) -> dict[str, Members]:
    """Every side's."""
    own = Members(KNOBS[architecture], values)
    other = {SAELENS: Members("l0_coefficient", l0_coefficients)} if architecture == "jumprelu" else {}
    return dict.fromkeys(SIDES, own) | other
