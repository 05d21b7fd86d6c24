"""Prompts of one's own, as rows of tokens: a JSONL file whose lines have `text`, or `tokens`, and whatever else."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sae_sweep.analyses.session.session import Stream
from sae_sweep.errors import ConfigError

SHORTEST = 2
"""Tokens of a row: nothing counts at its first."""
KEY = "analysis.downstream.prompts"


@dataclass(frozen=True)
class Prompts:
    """The lines of a file, in its order."""

    file: str
    lines: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, file: str) -> "Prompts":
        """Raises ConfigError for what is no such file."""
        try:
            lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{KEY}={file}: cannot be read ({error})") from error
        found = tuple(_line(f"{KEY}={file}: line {n}", line) for n, line in enumerate(lines, 1) if line.strip())
        if not found:
            raise ConfigError(f"{KEY}={file} has no prompt")
        return cls(file, found)

    def rows(self, stream: Stream) -> "list[Rows]":
        """Those of each length together, so that no row is filled up: the shortest first. Raises ConfigError where
        there is no tokenizer for text, and for what the model cannot read."""
        found: dict[int, tuple[list[list[int]], list[Mapping[str, Any]]]] = {}
        for number, line in enumerate(self.lines, 1):
            ids = self._ids(stream, number, line)
            rows, lines = found.setdefault(len(ids), ([], []))
            rows.append(ids)
            lines.append(line)
        made, first = [], 0
        for length in sorted(found):
            rows, lines = found[length]
            made.append(Rows(torch.tensor(rows, dtype=torch.int64), tuple(lines), first))
            first += len(rows)
        return made

    def _ids(self, stream: Stream, number: int, line: Mapping[str, Any]) -> list[int]:
        """Text begins with BOS where rows of training did; tokens are used as they are."""
        model, vocabulary = stream.model, stream.model.facts.vocab_size
        if "tokens" in line:
            ids = list(line["tokens"])
        elif model.tokenizer is None:
            raise ConfigError(f"{KEY}={self.file} has text, and the model ships no tokenizer; give tokens")
        else:
            ids = model.tokenizer(line["text"], add_special_tokens=False)["input_ids"]
            ids = [model.bos_id, *ids] if stream.bos and model.bos_id is not None else ids
        if len(ids) < SHORTEST or not all(0 <= each < vocabulary for each in ids):
            raise ConfigError(
                f"{KEY}={self.file}: prompt {number} has {len(ids)} tokens; each needs {SHORTEST}, from 0 to"
                f" {vocabulary - 1}"
            )
        return ids


@dataclass(frozen=True)
class Rows:
    """Prompts of one length."""

    tokens_RT: Tensor
    lines: tuple[Mapping[str, Any], ...]
    first: int
    """How many prompts are before them."""


def _line(where: str, line: str) -> Mapping[str, Any]:
    try:
        entries = json.loads(line)
    except ValueError as error:
        raise ConfigError(f"{where} is no JSON") from error
    tokens = entries.get("tokens") if isinstance(entries, dict) else None
    ids = isinstance(tokens, list) and all(isinstance(each, int) and not isinstance(each, bool) for each in tokens)
    if not isinstance(entries, dict) or not (ids or (tokens is None and isinstance(entries.get("text"), str))):
        raise ConfigError(f"{where} needs text, or tokens, which are integers")
    return entries
