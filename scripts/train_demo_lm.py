"""Train the small causal language model that ships in `sae_sweep/assets/demo_lm`.

What it makes: a byte-level BPE tokenizer (4,096 tokens) and a Llama of 1.4M parameters, both trained from nothing on
the training split of the demo corpus (the Python standard library's own source), saved as a Hugging Face model folder
with fp16 weights. The folder also gets a README.md, the model card.

How to run, from the root of a checkout:

    python scripts/train_demo_lm.py                     # the shipped model
    python scripts/train_demo_lm.py --out /tmp/lm --steps 200
    python scripts/train_demo_lm.py --out /tmp/lm64 --width 64 --mlp 192 --layers 2 --heads 2 --steps 6000

What it prints: the corpus in tokens, a progress line with the time left, and one final table of cross-entropies in nats
per token, all on the same held-out tokens: the model as reloaded from disk, the best interpolated bigram, the unigram.

How long: about 15 minutes on two CPU cores that compute in bf16 and do nothing else (37 when shared). The seed
fixes the initial weights and the order of the data; the last bits of a sum, and so of the result, are the machine's.
"""

import argparse
import json
import math
import platform
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

from sae_sweep.data.kinds.demo import demo_documents
from scripts import demo_text

DEFAULT_OUT = Path(__file__).resolve().parent.parent / "sae_sweep" / "assets" / "demo_lm"


@dataclass(frozen=True)
class Shape:
    """Sizes of the Llama; the defaults are the shipped model's."""

    width: int = 128
    """Of the residual stream."""
    mlp: int = 384
    layers: int = 4
    heads: int = 4


SHIPPED = Shape()


@dataclass(frozen=True)
class Report:
    """What is measured on the held-out rows, in nats per token, and over how much text."""

    model: float
    bigram: float
    unigram: float
    train_tokens: int
    heldout_tokens: int
    parameters: int


def build_model(shape: Shape) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=demo_text.VOCABULARY,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=demo_text.MAX_POSITIONS,
        tie_word_embeddings=True,
        bos_token_id=demo_text.EOS_ID,
        eos_token_id=demo_text.EOS_ID,
    )
    return LlamaForCausalLM(config)


def loss_on(model: LlamaForCausalLM, rows: torch.Tensor) -> torch.Tensor:
    """Mean next-token cross-entropy in nats over the rows."""
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


@torch.no_grad()
def model_cross_entropy(model: LlamaForCausalLM, rows: torch.Tensor, batch_rows: int = 16) -> float:
    """Nats per token over the same targets as the baselines. Every row has as many, so a mean over rows is exact."""
    model.train(False)
    total = 0.0
    for batch in torch.split(rows, batch_rows):
        total += loss_on(model, batch).item() * len(batch)
    return total / len(rows)


def make_optimizer(model: LlamaForCausalLM, lr: float) -> torch.optim.AdamW:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    gains = [parameter for parameter in model.parameters() if parameter.ndim <= 1]  # decay would pull norms to zero
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def schedule(step: int, steps: int, warmup: int) -> float:
    """The factor on lr: a linear rise, then a cosine down to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress))


def train_step(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> torch.Tensor:
    # Matmuls in bf16 (master weights stay fp32): several times faster where the CPU has it.
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_on(model, rows)
    torch.autograd.backward(loss)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss.detach()


def model_card(report: Report, shape: Shape, step: int, args: argparse.Namespace) -> str:
    epochs = step * args.batch_rows * (args.context - 1) / report.train_tokens
    return f"""# {args.out.name}

A small causal language model of Python source, so that `sae-sweep` can be tried and tested without a download.
It is real in what matters here (trained, with structure to find in its activations) and of no use for anything else.

| cross-entropy on held-out files | nats per token |
|---|---|
| this model, fp16 weights as shipped | {report.model:.4f} |
| bigram, interpolated with the unigram | {report.bigram:.4f} |
| unigram | {report.unigram:.4f} |

- **Architecture**: Llama, {shape.layers} layers, hidden {shape.width}, {shape.heads} heads, MLP {shape.mlp}, tied \
embeddings, {report.parameters:,} parameters.
- **Tokenizer**: byte-level BPE, {demo_text.VOCABULARY:,} tokens, trained on the same text. \
`{demo_text.EOS}` is its only special token,
  both bos and eos. The tokenizer adds none by itself; each row of training began with one, and one ends each document.
- **Text**: the standard library's source files in Python {platform.python_version()}, without its tests, character
  tables and installed packages (`sae_sweep/data/kinds/demo.py`): {report.train_tokens:,} tokens to train on and
  {report.heldout_tokens:,} held out, split by file path. The library has near-duplicates (lib2to3's tokenizer is a copy
  of the other one), a few of them across the split.
- **Training**: `scripts/train_demo_lm.py`, seed {args.seed}, {step:,} of {args.steps:,} steps, {args.batch_rows} rows
  of {args.context} tokens each ({epochs:.1f} epochs). AdamW, peak lr {args.lr:g}, cosine schedule, weight decay 0.1,
  no dropout. It accepts {demo_text.MAX_POSITIONS} positions but has been trained on no more than {args.context}.
- **Licence**: the text is the Python Software Foundation's and its contributors', under the PSF License Version 2 and
  the licences of incorporated software that Python's documentation lists; the model was made from that text alone.
"""


def save(model: LlamaForCausalLM, shape: Shape, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the fp16 model folder; `model` keeps its fp32 weights."""
    copy = build_model(shape)
    copy.load_state_dict(model.state_dict())
    copy.to(torch.float16).save_pretrained(folder)  # type: ignore[arg-type]
    tokenizer.save_pretrained(folder)
    name_tokenizer_class(folder / "tokenizer_config.json")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner may read, and this one is installed


def name_tokenizer_class(file: Path) -> None:
    """Give the class the name that transformers 4 and 5 both know; 5 writes one that 4 cannot load."""
    config = json.loads(file.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> LlamaForCausalLM:
    """The saved model, computing in fp32 on the fp16-rounded weights."""
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def swap_in(temporary: Path, out: Path) -> None:
    """Put a finished folder in the place of an older one: two renames, so a reader never sees half of it."""
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        out.rename(old)
    temporary.rename(out)
    shutil.rmtree(old, ignore_errors=True)


class Run:
    """One training run: the corpus in tokens, its baselines, and the model being trained on it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.shape = Shape(args.width, args.mlp, args.layers, args.heads)
        texts = list(demo_documents("train"))
        self.tokenizer = demo_text.train_tokenizer(texts)
        self.documents = demo_text.encode(self.tokenizer, texts)
        self.train = demo_text.stream(self.documents)
        heldout = demo_text.stream(demo_text.encode(self.tokenizer, list(demo_documents("heldout"))))
        self.heldout_rows = demo_text.pack(heldout, args.context)
        self.heldout_tokens = len(heldout)
        self.bigram = demo_text.bigram_cross_entropy(self.train, self.heldout_rows)
        self.unigram = demo_text.unigram_cross_entropy(self.train, self.heldout_rows)
        torch.manual_seed(args.seed)
        self.model = build_model(self.shape)
        self.model.set_attn_implementation("eager")  # on a CPU sdpa's backward is slower than all the rest of a step

    def fit(self) -> None:
        """Train, and save on the way, so that a usable model is there long before the best one."""
        args, started, smooth = self.args, time.monotonic(), 0.0
        optimizer = make_optimizer(self.model, args.lr)
        rows = demo_text.training_rows(self.documents, args.context, torch.Generator().manual_seed(args.seed))
        for step in range(args.steps):
            for group in optimizer.param_groups:
                group["lr"] = args.lr * schedule(step, args.steps, args.warmup)
            batch = torch.stack([next(rows) for _ in range(args.batch_rows)])
            self.model.train()
            loss = train_step(self.model, optimizer, batch).item()
            smooth = loss if step == 0 else smooth + (loss - smooth) * 0.02
            done = step + 1
            if done % args.log_every == 0:
                self.print_progress(done, smooth, time.monotonic() - started)
            if args.save_every and done % args.save_every == 0 and done < args.steps:
                print(f"saved at step {done}: held-out {self.publish(done).model:.4f}", flush=True)

    def print_progress(self, done: int, loss: float, elapsed: float) -> None:
        left = elapsed / done * (self.args.steps - done)
        speed = done * self.args.batch_rows * self.args.context / elapsed
        print(
            f"step {done}/{self.args.steps}  train loss {loss:.3f}  {speed:,.0f} tokens/s  "
            f"{elapsed / 60:.1f} min gone, {left / 60:.1f} min left",
            flush=True,
        )

    def publish(self, step: int) -> Report:
        """Save beside the output folder, measure what was saved, then swap it in."""
        temporary = self.args.out.with_name(f".{self.args.out.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        save(self.model, self.shape, self.tokenizer, temporary)
        reloaded = load(temporary)
        report = Report(
            model=model_cross_entropy(reloaded, self.heldout_rows),
            bigram=self.bigram,
            unigram=self.unigram,
            train_tokens=len(self.train),
            heldout_tokens=self.heldout_tokens,
            parameters=reloaded.num_parameters(),
        )
        (temporary / "README.md").write_text(model_card(report, self.shape, step, self.args), encoding="utf-8")
        swap_in(temporary, self.args.out)
        return report


def print_table(report: Report, out: Path) -> None:
    lines = {"unigram": report.unigram, "bigram, interpolated": report.bigram, f"model in {out.name}": report.model}
    print(f"\n{'on the same held-out tokens':32}{'nats/token':>12}{'below bigram':>15}")
    for name, nats in lines.items():
        print(f"{name:32}{nats:12.4f}{report.bigram - nats:15.4f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo language model (see the top of this file).")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="model folder, replaced as a whole")
    parser.add_argument("--width", type=int, default=SHIPPED.width, help="numbers per activation, a multiple of heads")
    parser.add_argument("--mlp", type=int, default=SHIPPED.mlp, help="neurons of one MLP")
    parser.add_argument("--layers", type=int, default=SHIPPED.layers, help="blocks")
    parser.add_argument("--heads", type=int, default=SHIPPED.heads, help="attention heads of a block")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch-rows", type=int, default=8)
    parser.add_argument("--context", type=int, default=256, help="tokens in a row, <|endoftext|> included")
    parser.add_argument("--lr", type=float, default=3e-3, help="peak learning rate")
    parser.add_argument("--warmup", type=int, default=200, help="steps of linear warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--save-every", type=int, default=3000, help="also save every so many steps; 0: never")
    args = parser.parse_args()
    args.out = args.out.resolve()
    if args.width % args.heads:
        parser.error(f"--width: {args.width} does not divide into {args.heads} heads")
    return args


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    logging.disable_progress_bar()  # one bar for one file, between our lines
    run = Run(args)
    print(f"{len(run.documents)} documents, {len(run.train):,} training tokens, {run.heldout_tokens:,} held-out tokens")
    print(f"held-out cross-entropy: unigram {run.unigram:.4f}, bigram {run.bigram:.4f}", flush=True)
    run.fit()
    report = run.publish(args.steps)
    print_table(report, args.out)


if __name__ == "__main__":
    main()
