"""The metrics of metrics.json written out from their definitions: full forwards, plain module hooks, one row at a time.

Nothing here is fast and nothing here is ours: no suffix pass, no chunk, no running sum.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

Edit = Callable[[Tensor], Tensor]
Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Place:
    """Where a site is in a Hugging Face model: a module, and whether the site is its input."""

    module: str
    is_input: bool


PLACES = {
    "gpt2": {
        "resid_post": Place("transformer.h.{layer}", False),
        "mlp_out": Place("transformer.h.{layer}.mlp", False),
        "attn_z": Place("transformer.h.{layer}.attn.c_proj", True),
    },
    "llama": {
        "resid_post": Place("model.layers.{layer}", False),
        "mlp_out": Place("model.layers.{layer}.mlp", False),
        "attn_z": Place("model.layers.{layer}.self_attn.o_proj", True),
    },
    "gemma2": {
        "resid_post": Place("model.layers.{layer}", False),
        "mlp_out": Place("model.layers.{layer}.post_feedforward_layernorm", False),
        "attn_z": Place("model.layers.{layer}.self_attn.o_proj", True),
    },
    "neox": {
        "resid_post": Place("gpt_neox.layers.{layer}", False),
        "mlp_out": Place("gpt_neox.layers.{layer}.mlp", False),
        "attn_z": Place("gpt_neox.layers.{layer}.attention.dense", True),
    },
}
HOOKS = {
    "resid_post": "blocks.{layer}.hook_resid_post",
    "mlp_out": "blocks.{layer}.hook_mlp_out",
    "attn_z": "blocks.{layer}.attn.hook_z",
}


class PlainModel:
    """A Hugging Face model in float64 that is run whole, each time."""

    def __init__(self, family: str, folder: Path) -> None:
        self._places = PLACES[family]
        self._module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
        self._activations: dict[tuple[Any, ...], Tensor] = {}
        self._clean: dict[tuple[int, ...], Tensor] = {}
        """What nothing edits is the same for every SAE."""

    def activation(self, kind: str, layer: int, row_T: Tensor) -> Tensor:
        """[T, d]: what a full forward computes at the site."""
        key = (kind, layer, *row_T.tolist())
        if key not in self._activations:

            def look(x_TD: Tensor) -> Tensor:
                self._activations[key] = x_TD.clone()
                return x_TD

            self.log_probabilities(row_T, kind, layer, look)
        return self._activations[key]

    def residuals(self, row_T: Tensor, kind: str, layer: int, edit: Edit | None, ends: Sequence[int]) -> list[Tensor]:
        """[T, d] at the end of each of these blocks, with the site's activation passed through `edit` on the way."""
        seen: dict[int, Tensor] = {}
        with ExitStack() as stack:
            for block in ends:
                module = self._module.get_submodule(self._places["resid_post"].module.format(layer=block))

                def keep(_: nn.Module, __: Any, output: Any, block: int = block) -> None:
                    seen[block] = (output[0] if isinstance(output, tuple) else output)[0].clone()

                stack.enter_context(module.register_forward_hook(keep))
            self.log_probabilities(row_T, kind, layer, edit or (lambda x_TD: x_TD))
        return [seen[block] for block in ends]

    @torch.no_grad()
    def log_probabilities(self, row_T: Tensor, kind: str, layer: int, edit: Edit | None) -> Tensor:
        """[T, V] of one row, with the site's activation passed through `edit` on the way."""
        if edit is None:
            key = tuple(row_T.tolist())
            if key not in self._clean:
                logits = self._module(input_ids=row_T[None]).logits[0]
                self._clean[key] = logits - logits.logsumexp(dim=-1, keepdim=True)
            return self._clean[key]
        place = self._places[kind]
        module: nn.Module = self._module.get_submodule(place.module.format(layer=layer))

        def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (edit(args[0][0])[None], *args[1:])

        def after(_: nn.Module, __: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (edit(output[0][0])[None], *output[1:])
            return edit(output[0])[None]

        handle = module.register_forward_pre_hook(before) if place.is_input else module.register_forward_hook(after)
        with handle:
            logits = self._module(input_ids=row_T[None]).logits[0]
        return logits - logits.logsumexp(dim=-1, keepdim=True)


@dataclass(frozen=True)
class PlainSae:
    """An SAE by the tensors of its file, float64: x @ W_enc, f @ W_dec."""

    architecture: str
    tensors: dict[str, Tensor]
    subtract_b_dec: bool
    k: int | None

    def encode(self, x_ND: Tensor) -> Tensor:
        t = self.tensors
        centred = x_ND - t["b_dec"] if self.subtract_b_dec else x_ND
        if self.architecture == "gated":
            gate = centred @ t["W_enc"] + t["b_gate"]
            magnitude = centred @ (t["W_enc"] * t["r_mag"].exp()) + t["b_mag"]
            return torch.where(gate > 0, magnitude.clamp_min(0), 0.0)
        pre = centred @ t["W_enc"] + t["b_enc"]
        if self.architecture == "standard":
            return pre.clamp_min(0)
        if self.architecture == "jumprelu":
            return torch.where(pre > t["threshold"], pre.clamp_min(0), 0.0)
        assert self.architecture == "topk"
        assert self.k is not None
        codes = torch.zeros_like(pre)
        for token, own in enumerate(pre):
            for latent in own.argsort(descending=True)[: self.k].tolist():
                codes[token, latent] = max(own[latent].item(), 0.0)
        return codes

    def decode(self, f_NF: Tensor) -> Tensor:
        return f_NF @ self.tensors["W_dec"] + self.tensors["b_dec"]


def counted(row: Sequence[int], special: set[int], bos: int | None) -> list[int]:
    """Positions that count: no special token, and not the first position of a row that has no BOS."""
    has_bos = row[0] == bos
    return [t for t, token in enumerate(row) if token not in special and token != bos and (t > 0 or has_bos)]


def targets(row: Sequence[int], special: set[int], bos: int | None) -> list[int]:
    """Counted positions whose next token exists and is not special."""
    return [t for t in counted(row, special, bos) if t + 1 < len(row) and row[t + 1] not in special]


@dataclass(frozen=True)
class Question:
    """What is judged on what: everything the definitions depend on beside the model."""

    kind: str
    layer: int
    tokens_RT: Tensor
    special: set[int]
    bos: int | None
    mean_D: Tensor
    every_position: bool
    ends: tuple[int, ...] = ()
    """Blocks after the site whose outputs are compared."""
    largest: float = float("inf")
    """The norm above which an activation does not count."""


@dataclass
class RowResult:
    """The per-token numbers of one held-out row."""

    x_ND: Tensor
    f_NF: Tensor
    x_hat_ND: Tensor
    ce: dict[str, Tensor]
    """By pass (clean, sae, zero, mean): nats at each target."""
    kl: dict[str, Tensor]
    later: list[tuple[Tensor, Tensor]]
    """By later block: clean activations [N, d] and those with the SAE."""
    outliers: int


def recomputed(model: PlainModel, sae: PlainSae, question: Question) -> Metrics:
    """Every metric that held-out tokens decide."""
    return _metrics([_row(model, sae, question, row_T) for row_T in question.tokens_RT], sae)


def _row(model: PlainModel, sae: PlainSae, q: Question, row_T: Tensor) -> RowResult:
    row = row_T.tolist()
    x_TD = model.activation(q.kind, q.layer, row_T)
    candidates = counted(row, q.special, q.bos)
    own = [t for t in candidates if x_TD[t].norm() <= q.largest]
    replaced = list(range(len(row))) if q.every_position else own

    def put(values_TD: Tensor) -> Edit:
        def edit(activation_TD: Tensor) -> Tensor:
            result = activation_TD.clone()
            for t in replaced:
                result[t] = values_TD[t]
            return result

        return edit

    f_TF = sae.encode(x_TD)
    x_hat_TD = sae.decode(f_TF)
    edits = {
        "clean": None,
        "sae": put(x_hat_TD),
        "zero": put(torch.zeros_like(x_TD)),
        "mean": put(q.mean_D.expand_as(x_TD)),
    }
    log_p = {name: model.log_probabilities(row_T, q.kind, q.layer, edit) for name, edit in edits.items()}
    at = torch.tensor([t for t in targets(row, q.special, q.bos) if t in own], dtype=torch.int64)
    ce = {name: -log[at, row_T[at + 1]] for name, log in log_p.items()}
    clean = log_p["clean"][at]
    kl = {name: (clean.exp() * (clean - log_p[name][at])).sum(1) for name in ("sae", "zero")}
    passes = [model.residuals(row_T, q.kind, q.layer, edits[name], q.ends) for name in ("clean", "sae")]
    later = [(clean_TD[own], spliced_TD[own]) for clean_TD, spliced_TD in zip(*passes, strict=True)]
    return RowResult(x_TD[own], f_TF[own], x_hat_TD[own], ce, kl, later, len(candidates) - len(own))


def _metrics(rows: Sequence[RowResult], sae: PlainSae) -> Metrics:
    x, f, x_hat = (torch.cat([getattr(row, name) for row in rows]) for name in ("x_ND", "f_NF", "x_hat_ND"))
    ce = {name: torch.cat([row.ce[name] for row in rows]).mean().item() for name in rows[0].ce}
    kl = {name: torch.cat([row.kl[name] for row in rows]).mean().item() for name in rows[0].kl}
    error = (x - x_hat).square().sum().item()
    density = (f > 0).double().mean(0)
    fvu = error / (x - x.mean(0)).square().sum().item()
    return {
        "l0": (f > 0).double().sum(1).mean().item(),
        "l1": (f * sae.tensors["W_dec"].norm(dim=1)).sum(1).mean().item(),
        "mse": error / len(x),
        "fvu": fvu,
        "explained_variance": 1 - fvu,
        "cosine": torch.nn.functional.cosine_similarity(x, x_hat, dim=1).mean().item(),
        "gamma": x_hat.square().sum().item() / (x_hat * x).sum().item(),
        "ce_clean": ce["clean"],
        "ce_sae": ce["sae"],
        "ce_zero": ce["zero"],
        "ce_mean": ce["mean"],
        "ce_delta": ce["sae"] - ce["clean"],
        "ce_recovered": (ce["zero"] - ce["sae"]) / (ce["zero"] - ce["clean"]),
        "ce_recovered_mean": (ce["mean"] - ce["sae"]) / (ce["mean"] - ce["clean"]),
        "kl": kl["sae"],
        "kl_zero": kl["zero"],
        "later_fvu": _later_fvu(rows),
        "alive": (density > 0).double().mean().item(),
        "density_over_1pct": (density > 0.01).double().mean().item(),
        "density_over_10pct": (density > 0.1).double().mean().item(),
        "l0_se": delete_one([row for row in rows if len(row.f_NF)], _l0),
        "ce_recovered_se": delete_one([row for row in rows if len(row.ce["clean"])], _ce_recovered),
        "tokens_evaluated": len(x),
        "outlier_fraction": (outliers := sum(row.outliers for row in rows)) / (outliers + len(x)),
    }


def _later_fvu(rows: Sequence[RowResult]) -> float | None:
    found = []
    for block in range(len(rows[0].later)):
        clean_ND, spliced_ND = (torch.cat([row.later[block][i] for row in rows]) for i in (0, 1))
        error_ND = clean_ND - spliced_ND
        found.append(error_ND.square().sum().item() / (clean_ND - clean_ND.mean(0)).square().sum().item())
    return sum(found) / len(found) if found else None


def _l0(rows: Sequence[RowResult]) -> float:
    return (torch.cat([row.f_NF for row in rows]) > 0).double().sum(1).mean().item()


def _ce_recovered(rows: Sequence[RowResult]) -> float:
    clean, zero, sae = (torch.cat([row.ce[name] for row in rows]).mean().item() for name in ("clean", "zero", "sae"))
    return (zero - sae) / (zero - clean)


def delete_one(rows: Sequence[RowResult], estimate: Callable[[Sequence[RowResult]], float]) -> float | None:
    """The jackknife's standard error of an estimate, by making it again without each row in turn."""
    n = len(rows)
    if n < 2:
        return None
    without = [estimate([row for j, row in enumerate(rows) if j != i]) for i in range(n)]
    average = sum(without) / n
    return float(((n - 1) / n * sum((one - average) ** 2 for one in without)) ** 0.5)
