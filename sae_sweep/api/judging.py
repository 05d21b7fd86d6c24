"""Judging SAEs from Python: what a sweep does of its members, for any SAEs of one language model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sae_sweep.activations.scaling import site_statistics
from sae_sweep.api.model import Model
from sae_sweep.api.sae import Sae
from sae_sweep.config.files import config_of, other_data
from sae_sweep.config.schema import MemberConfig
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.kernels.entries import Entries, above
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.observe import check_hook
from sae_sweep.model.sites import later_sites, site_width
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from sae_sweep.training.run.sources import LanguageModelSource

if TYPE_CHECKING:
    import pandas as pd


def evaluate(
    saes: Mapping[str, nn.Module] | Sequence[nn.Module],
    model: Model | None = None,
    data: Iterable[str] | None = None,
    hook: str | None = None,
) -> "pd.DataFrame":
    """Judge SAEs of one language model (a sweep, or several SAEs) together, in one clean pass, as a sweep judges its
    members; a row for each.

    `model` is by default the one that the first was trained on. What is read is by default the held-out tokens of the
    first one's sweep; `data` says what else in the command line's words, like ["data=text", "data.path=FILE",
    "evaluation.tokens=1e5"]. The mean of mean ablation stays that of the block that it was calibrated on. An SAE may be
    any module with `encode` and `decode`, whose hook is its `cfg.hook_name`, or else `hook`.
    Raises ConfigError for what cannot be judged together.

    >>> found = ss.evaluate(sweep)
    >>> bool((found["l0"] == sweep.frame()["l0"]).all())
    True
    """
    import pandas as pd

    saes = list(saes.values()) if isinstance(saes, Mapping) else list(saes)
    if not saes:
        raise ConfigError("evaluate: no SAE is given")
    model = model or _model(saes)
    data = list(data or [])
    trained = _trained(saes, model, data)
    config = other_data(trained, data)
    judged = _labelled([_spliced(sae, model, config, hook) for sae in saes])
    hooks = tuple(dict.fromkeys(hook for one in judged for hook in one.hooks))
    reads = tuple(dict.fromkeys(one.reads for one in judged if one.reads is not None))
    source = LanguageModelSource(trained, tuple(dict.fromkeys((*hooks, *reads))), model=model.running)
    statistics = site_statistics(source.calibration())
    means = {hook: statistics[hook].mean for hook in hooks}
    watched = tuple(dict.fromkeys(hook for one in judged for hook in one.watched))
    rows = source.judged_rows(config) if data else None
    found = source.evaluator(config.evaluation.positions, means, watched, rows).evaluate(judged)
    metrics = {label: evaluation.metrics for label, evaluation in found.items()}
    return pd.DataFrame.from_dict(metrics, orient="index").rename_axis("sae")


@dataclass(frozen=True)
class ModuleSae(InferenceSae):
    """Any module with `encode` and `decode`, as the judge sees an SAE."""

    module: Any = None

    def encode(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> Tensor:
        """[B, F]"""
        codes_BF: Tensor = self.module.encode(x_BD)
        return codes_BF

    def decode(self, f_BF: Tensor, tokens_B: Tensor | None = None, x_BD: Tensor | None = None) -> Tensor:
        """[B, D]"""
        decoded_BD: Tensor = self.module.decode(f_BF)
        return decoded_BD

    def coded(self, x_BD: Tensor, tokens_B: Tensor | None = None) -> tuple[Entries, Tensor]:
        """The codes above 0, listed, and the reconstructions [B, D]."""
        f_BF = self.encode(x_BD)
        return above(f_BF), self.decode(f_BF)

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module, d: int, device: torch.device) -> "ModuleSae":
        """Its decoder rows are W_dec [F, D], or what decoding each latent alone adds. ConfigError for other modules."""
        if not callable(getattr(module, "encode", None)) or not callable(getattr(module, "decode", None)):
            raise ConfigError(f"evaluate: {type(module).__name__} has no encode and decode")
        module = module.to(device)
        dtype = next((each.dtype for each in module.parameters() if each.is_floating_point()), torch.float32)
        made = cls(ReluForm(), {}, False, module=module)
        codes_1F = made.encode(torch.zeros(1, d, device=device, dtype=dtype))
        rows_FD = getattr(module, "W_dec", None)
        if rows_FD is None or rows_FD.shape != (codes_1F.shape[1], d):
            zero_1F = torch.zeros_like(codes_1F)
            rows_FD = made.decode(torch.eye(codes_1F.shape[1], device=device, dtype=dtype)) - made.decode(zero_1F)
        return replace(made, tensors={"W_dec": rows_FD.detach(), "W_enc": rows_FD.detach().T})


def _model(saes: Sequence[nn.Module]) -> Model:
    """The model of the first that says one. Raises ConfigError where none does, or others say another."""
    ours = [sae for sae in saes if isinstance(sae, Sae)]
    if not ours:
        raise ConfigError("evaluate: give model=, these SAEs do not say theirs")
    named = {sae.home.metadata.get("model_name") for sae in ours}
    if len(named) > 1:
        raise ConfigError(f"evaluate: these SAEs are of several models: {', '.join(map(str, named))}; judge each's own")
    return ours[0].model()


def _trained(saes: Sequence[nn.Module], model: Model, data: Sequence[str]) -> MemberConfig:
    """What the first member among them was trained on, else the data themselves. Raises ConfigError without either."""
    member = next((sae for sae in saes if isinstance(sae, Sae) and sae.home.is_member), None)
    if member is None and not data:
        raise ConfigError('evaluate: give data=, like ["data=text", "data.path=FILE"]: no sweep trained these SAEs')
    return replace(config_of(data) if member is None else member.home.config, model=model.running.config)


def _spliced(sae: nn.Module, model: Model, config: MemberConfig, hook: str | None) -> SplicedSae:
    """An SAE at its site, on the model's device. Raises ConfigError where it does not fit that."""
    run = model.running
    one = sae.spliced(run.device) if isinstance(sae, Sae) else _module(sae, run, hook)
    sites = [check_hook(run, each) for each in one.hooks]
    for site in sites:
        width = site_width(site, run.facts)
        if width is not None and one.sae.d_out != width * len(sites):
            raise ConfigError(
                f"evaluate: {one.label} reconstructs {one.sae.d_out} numbers, and {site.hook} has {width}"
            )
    last = max(sites, key=lambda each: -1 if each.layer is None else each.layer)
    return replace(one, watched=later_sites(last, run.facts.n_layers, config.evaluation.later_sites))


def _module(module: nn.Module, run: LanguageModel, hook: str | None) -> SplicedSae:
    """A module of any kind at its hook."""
    hook = getattr(getattr(module, "cfg", None), "hook_name", None) or hook
    if not isinstance(hook, str):
        raise ConfigError(f"evaluate: {type(module).__name__} does not say its hook; give hook=")
    width = site_width(check_hook(run, hook), run.facts)
    if width is None:
        raise ConfigError(f"evaluate: hook={hook} has no known width; give one of a known kind")
    return SplicedSae(type(module).__name__, hook, ModuleSae.of(module, width, run.device))


def _labelled(saes: Sequence[SplicedSae]) -> list[SplicedSae]:
    """With labels that differ."""
    names, made = [sae.label for sae in saes], list[SplicedSae]()
    for place, sae in enumerate(saes):
        before = names[:place].count(sae.label)
        made.append(replace(sae, label=f"{sae.label} ({before + 1})") if before else sae)
    return made
