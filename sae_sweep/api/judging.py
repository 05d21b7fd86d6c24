"""Judging SAEs from Python: what a sweep does of its members, for any SAEs of one language model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sae_sweep.activations.first_block import FirstBlock, read_first_block
from sae_sweep.analyses.session.courts import court
from sae_sweep.analyses.session.judging import is_site
from sae_sweep.api.home import Home
from sae_sweep.api.model import Model
from sae_sweep.api.sae import Sae
from sae_sweep.config.files import config_of, other_data, other_site
from sae_sweep.config.schema import MemberConfig
from sae_sweep.data.kinds import modelless_kind
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.evaluation.places import check_widths, placed
from sae_sweep.kernels.entries import Entries, above
from sae_sweep.model.facts import model_facts
from sae_sweep.model.language_model import LanguageModel
from sae_sweep.model.load import resolve_device
from sae_sweep.model.observe import check_hook
from sae_sweep.model.second import later_in_models
from sae_sweep.model.sites import Site, model_of, modelless_site, parse_hook, resolve_site, site_width
from sae_sweep.plan.groups import stream_key
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae

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
    "evaluation.tokens=1e5"], and where all are judged if not where they were trained: ["site.layer=3"]. The mean of
    mean ablation stays that of the block that it was calibrated on. An SAE may be any module with `encode` and
    `decode`, whose hook is its `cfg.hook_name`, or else `hook`. SAEs of activations without a language model are judged
    on such, and have neither CE nor KL. `attrs["data"]` of the frame says in a line what was read.
    Raises ConfigError for what cannot be judged together.

    >>> found = ss.evaluate(sweep)
    >>> bool((found["l0"] == sweep.frame()["l0"]).all())
    True
    """
    import pandas as pd

    saes = list(saes.values()) if isinstance(saes, Mapping) else list(saes)
    if not saes:
        raise ConfigError("evaluate: no SAE is given")
    words = list(data or [])
    sites, asked = [word for word in words if is_site(word)], [word for word in words if not is_site(word)]
    modelless = model is None and _is_modelless(saes)
    run = None if modelless else (model or _model(saes)).running
    trained = _trained(saes, run, asked)
    config = other_data(trained, asked)
    if run is None:
        judged = [_without_model(sae, trained, sites) for sae in saes]
    else:
        at = resolve_site(other_site(trained, sites).site, run.facts) if sites else None
        judged = [_spliced(sae, run, config, hook, at) for sae in saes]
    judged = _labelled(judged)
    held = court(trained, config, judged, model=run, first_block=_first_block(saes, trained))
    found = held.evaluator(config.evaluation.positions).evaluate([one.on(held.device) for one in judged])
    metrics = {label: evaluation.metrics for label, evaluation in found.items()}
    frame = pd.DataFrame.from_dict(metrics, orient="index").rename_axis("sae")
    frame.attrs["data"] = held.account
    return frame


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
    """The model of the first that says one, which those that say none are taken to be of. Raises ConfigError where none
    does, or others say another."""
    ours = [sae for sae in saes if isinstance(sae, Sae)]
    if not ours:
        raise ConfigError("evaluate: give model=, these SAEs do not say theirs")
    named = {name: sae for sae in reversed(ours) if (name := sae.home.metadata.get("model_name")) is not None}
    if len(named) > 1:
        raise ConfigError(f"evaluate: these SAEs are of several models: {', '.join(map(str, named))}; judge each's own")
    return next(iter(named.values()), ours[0]).model()


def _is_modelless(saes: Sequence[nn.Module]) -> bool:
    """Whether the first member among them was trained without a language model."""
    member = _member(saes)
    return member is not None and modelless_kind(member.home.config.data.kind) is not None


def _member(saes: Sequence[nn.Module]) -> Sae | None:
    return next((sae for sae in saes if isinstance(sae, Sae) and sae.home.is_member), None)


def _trained(saes: Sequence[nn.Module], run: LanguageModel | None, data: Sequence[str]) -> MemberConfig:
    """What the first member among them was trained on, else the data themselves. Raises ConfigError without either."""
    member = _member(saes)
    if member is None and not data:
        raise ConfigError(
            "eval: give data=text data.path=FILE (in Python data=[...] of these): no sweep trained these SAEs, so"
            " nothing says what to judge them on"
        )
    config = config_of(data) if member is None else member.home.config
    return config if run is None else replace(config, model=run.config)


def _first_block(saes: Sequence[nn.Module], trained: MemberConfig) -> FirstBlock:
    """What those of these SAEs that were trained on this stream keep of its first block."""
    homes = [sae.home for sae in saes if isinstance(sae, Sae) and sae.home.is_member]
    return read_first_block(home.folder for home in homes if _reads(home, stream_key(trained)))


def _reads(home: Home, stream: str) -> bool:
    try:
        return stream_key(home.config) == stream
    except ConfigError:  # its config.yaml is of no use, which nothing else asks for
        return False


def _without_model(sae: nn.Module, trained: MemberConfig, sites: Sequence[str]) -> SplicedSae:
    """An SAE on activations that there is no model for. Raises ConfigError where it does not fit them."""
    kind = modelless_kind(trained.data.kind)
    assert kind is not None
    if sites:
        raise ConfigError(f"{sites[0]}: data.kind={trained.data.kind} has no sites")
    site, width = modelless_site(trained.data.kind), kind.dimensions(trained.data)
    device = resolve_device(trained.model.device)
    if not isinstance(sae, Sae):
        return SplicedSae(type(sae).__name__, site.hook, ModuleSae.of(sae, width, device))
    one = placed(sae.home.folder.name, sae.frozen(device), site)
    check_widths(one, {site.hook: width}, "judge others with their own")
    if sae.home.is_member:
        training = sae.home.config.training
        return replace(one, steps=int(training.tokens) // training.batch_size, batch_size=training.batch_size)
    return one


def _spliced(sae: nn.Module, run: LanguageModel, config: MemberConfig, hook: str | None, at: Site | None) -> SplicedSae:
    """An SAE at its site, or at another one, on the model's device. Raises ConfigError where it does not fit that."""
    if not isinstance(sae, Sae):
        one = _module(sae, run, hook, at)
    elif at is None:
        one = sae.spliced(run.device)
    else:
        one = placed(sae.home.folder.name, sae.frozen(run.device), _completed(sae, at))
    places = [parse_hook(each) if model_of(each) else check_hook(run, each) for each in one.hooks]
    check_widths(one, {site.hook: site_width(site, run.facts) for site in places}, "judge it at another site")
    facts = [run.facts]
    if one.models > 1 and isinstance(sae, Sae):
        facts += map(model_facts, sae.home.second(run.config))
    return replace(one, watched=later_in_models(places, facts, config.evaluation.later_sites))


def _completed(sae: Sae, at: Site) -> Site:
    """The site, with where a transcoder writes if that is not said."""
    written = sae.home.metadata.get("hook_name_out")
    takes = sae.inference.transcodes and at.output is None and isinstance(written, str)
    return replace(at, output=parse_hook(str(written))) if takes else at


def _module(module: nn.Module, run: LanguageModel, hook: str | None, at: Site | None) -> SplicedSae:
    """A module of any kind at its hook, or at another site."""
    hook = getattr(getattr(module, "cfg", None), "hook_name", None) or hook if at is None else at.hook
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
