"""A second model beside the demo's: the same one, tuned on text it is bad at, for crosscoders over two models.

    python scripts/tune_demo_lm.py OUT                 a few minutes on two cores

OUT/model is a Hugging Face folder. What it was tuned on lies beside it, as JSON lines, `train.jsonl` and
`heldout.jsonl`: the demo's documents as they are and, as many, in capitals. What is printed are cross-entropies in nats
per token on the held-out halves, of both models.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from sae_sweep.data.kinds.demo import Split, demo_documents
from scripts import demo_text
from scripts.train_demo_lm import DEFAULT_OUT

CONTEXT, ROWS, LR, JUDGED_ROWS = 256, 16, 5e-4, 64


def written(split: Split, folder: Path) -> list[str]:
    """Every second document in capitals, the others as they are, and both in a file."""
    texts = [text.upper() if number % 2 else text for number, text in enumerate(demo_documents(split))]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return texts


def loss(model: PreTrainedModel, rows_RT: Tensor) -> Tensor:
    """Nats per token."""
    logits_RTV = model(input_ids=rows_RT[:, :-1]).logits.float()
    return cross_entropy(logits_RTV.flatten(0, 1), rows_RT[:, 1:].flatten())


def tune(model: PreTrainedModel, documents: demo_text.Documents, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), LR)
    rows = demo_text.training_rows(documents, CONTEXT, torch.Generator().manual_seed(0))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = LR * min(1.0, 2 * (1 - step / steps))
        loss(model, torch.stack([next(rows) for _ in range(ROWS)])).backward()
        optimizer.step()
        optimizer.zero_grad()
        if not (step + 1) % 50:
            print(f"step {step + 1} of {steps}", flush=True)


def told(name: str, model: PreTrainedModel, halves: Sequence[tuple[str, Tensor]]) -> None:
    """One line of cross-entropies."""
    with torch.inference_mode():
        print(name, *(f"{what} {loss(model, rows_RT).item():.3f}" for what, rows_RT in halves))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(DEFAULT_OUT, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEFAULT_OUT)
    train, heldout = (demo_text.encode(tokenizer, written(split, asked.out)) for split in ("train", "heldout"))
    kinds = {"as it is": heldout[::2], "in capitals": heldout[1::2]}
    halves = [(name, demo_text.pack(demo_text.stream(own), CONTEXT)[:JUDGED_ROWS]) for name, own in kinds.items()]
    told("the demo's:", model, halves)
    tune(model, train, asked.steps)
    told("tuned:", model, halves)
    model.save_pretrained(asked.out / "model")
    tokenizer.save_pretrained(asked.out / "model")


if __name__ == "__main__":
    main()
