"""What a model and SAEs make of labelled texts: a row of features for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sae_sweep.analyses.probes.tasks import Task
from sae_sweep.analyses.session.session import Stream
from sae_sweep.data.positions import counted_positions
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.evaluator import SplicedSae
from sae_sweep.model.together import harvest_together


@dataclass(frozen=True)
class Texts:
    """Some texts as rows of tokens, all on the model's device."""

    tokens_RT: Tensor
    pooled_RT: Tensor
    """[R, T] bool: the positions that features are of."""
    activations: dict[str, Tensor]
    """[R, T, d] by hook."""


def read_texts(stream: Stream, task: Task, hooks: Sequence[str], most: int, rows: int) -> list[Texts]:
    """The activations of a task's texts, so many at a time, each cut to its first tokens; where the last has the label,
    to its last. Raises ConfigError where the model ships no tokenizer."""
    tokenizer = stream.model.tokenizer
    if tokenizer is None:
        raise ConfigError("analysis.probing: the model ships no tokenizer, so no text can be read")
    ids = tokenizer([one.text for one in task.examples], add_special_tokens=False)["input_ids"]
    cut = [each[-most:] if task.last else each[:most] for each in ids]
    return [_read(stream, task, hooks, cut[first : first + rows]) for first in range(0, len(cut), rows)]


def _read(stream: Stream, task: Task, hooks: Sequence[str], ids: Sequence[Sequence[int]]) -> Texts:
    model = stream.model
    bos = [model.bos_id] if stream.bos and model.bos_id is not None else []
    rows = [[*bos, *each] for each in ids]
    length = max(2, *map(len, rows))
    # Behind its last token a row has others, which nothing before them sees.
    tokens_RT = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=model.device)
    length_R = torch.tensor([len(row) for row in rows], device=model.device)
    position_T = torch.arange(length, device=model.device)
    inside_RT = position_T < length_R[:, None]
    if task.last:
        pooled_RT = position_T == length_R[:, None] - 1
    else:
        counted_RT = counted_positions(tokens_RT, model.special_ids.to(model.device), model.bos_id)
        pooled_RT = counted_RT & inside_RT
    return Texts(tokens_RT, pooled_RT, harvest_together(stream.source.models, tokens_RT, hooks))


def _pooled(values_ND: Tensor, texts: Texts) -> Tensor:
    """[R, d]: the mean over each text's positions; 0 where it has none."""
    row_N = texts.pooled_RT.nonzero()[:, 0]
    sums_RD = values_ND.new_zeros(len(texts.tokens_RT), values_ND.shape[1]).index_add_(0, row_N, values_ND)
    return sums_RD / texts.pooled_RT.sum(1, keepdim=True).clamp(min=1).to(values_ND)


def _inputs(one: SplicedSae, texts: Texts) -> Tensor:
    """[N, d]: what an SAE reads at the positions that are pooled."""
    hooks = one.hooks if one.reads is None else (one.reads,)
    return torch.cat([texts.activations[hook][texts.pooled_RT] for hook in hooks], dim=1)


@torch.no_grad()
def features(one: SplicedSae, texts: Sequence[Texts]) -> tuple[Tensor, Tensor]:
    """[R, F] and [R, d] float64, on the CPU: the codes of an SAE, and the activations that it reads, of each text."""
    found = list(_each(one, texts))
    codes_RF, raw_RD = (torch.cat([each[i] for each in found]) for i in (0, 1))
    return codes_RF, raw_RD


def _each(one: SplicedSae, texts: Sequence[Texts]) -> Iterator[tuple[Tensor, Tensor]]:
    for some in texts:
        x_ND = _inputs(one, some)
        f_NF = one.sae.encode(x_ND.to(one.sae.tensors["W_enc"].dtype), some.tokens_RT[some.pooled_RT])
        yield _pooled(f_NF.double(), some).cpu(), _pooled(x_ND.double(), some).cpu()
