"""The files and folders that the table of every key speaks of: text, datasets and models, each with another like it."""

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import torch
from safetensors.torch import load_file, save_file

from sae_sweep.interop import saelens
from sae_sweep.saes.forms.relu import ReluForm
from sae_sweep.saes.inference import InferenceSae
from tests.conftest import tuned
from tests.model.adapters import save_lora

Places = dict[str, Path | str]

HUB_SIZES = "model.d_model=32 model.n_layers=4 model.n_heads=4 model.d_head=8 model.d_mlp=80 model.vocab_size=300"
"""The sizes of the llama folder, stated."""
ENDS, ON_DISK = ("model.embed_tokens", "model.norm", "lm_head"), "model.layers.1"
DEVICE_MAP = ",".join(f"{name}:cpu" for name in (*ENDS, *(f"model.layers.{layer}" for layer in (0, 2, 3))))
DEVICE_MAP = f"{{{DEVICE_MAP},{ON_DISK}:disk}}"
"""Of the llama folder, one block on the disk."""
OWN_CODE = """\
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own_kind"


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def make_places(folder: Path, llama: Path, gpt2: Path) -> Places:
    """What each `{name}` of the table stands for."""
    texts = {name: _documents(seed) for seed, name in enumerate(("text", "other_text", "third_text"))}
    for name, documents in texts.items():
        (folder / f"{name}.txt").write_text("".join(documents))
    pairs = zip(texts["text"], texts["other_text"], strict=True)
    records = [{"text": a, "body": b, "kind": "ab"[n % 2]} for n, (a, b) in enumerate(pairs)]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(_chat(record)) for record in records))
    words = "".join(texts["text"]).replace("\n", "")
    (folder / "short.jsonl").write_text("\n".join(json.dumps({"text": words[n : n + 5]}) for n in range(0, 15000, 5)))
    (folder / "damaged.jsonl").write_text((folder / "records.jsonl").read_text() + "\n{")
    return {
        **{name: folder / f"{name}.txt" for name in texts},
        "damaged": folder / "damaged.jsonl",
        "jsonl": folder / "records.jsonl",
        "chats": folder / "chats.jsonl",
        "short": folder / "short.jsonl",
        "chatty": _with_a_template(folder / "chatty", llama),
        "dataset": _dataset(folder / "dataset", texts),
        "saved": _saved(folder / "saved", texts),
        "llama": llama,
        "gpt2": gpt2,
        "tuned": tuned(folder / "tuned", llama),
        "adapter": save_lora(folder / "adapter", llama),
        "custom": _with_own_code(folder / "custom", llama),
        "finished": _finished(folder / "finished"),
        "sizes": HUB_SIZES,
        "device_map": DEVICE_MAP,
        "outputs": folder / "outputs",
        "elsewhere": folder / "elsewhere",
    }


def _chat(record: dict[str, str]) -> dict[str, Any]:
    """Two messages of a record, and its text under a name that only data.field knows."""
    said = [{"role": "user", "content": record["text"][:150]}, {"role": "assistant", "content": record["body"]}]
    return {"messages": said, "said": record["text"]}


def _with_a_template(folder: Path, llama: Path) -> Path:
    """The llama, with a chat template."""
    shutil.copytree(llama, folder)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}<bos>{{ message.role }}: {{ message.content | trim }}<eos>{% endfor %}"
    )
    return folder


def make_hub_cache(folder: Path, llama: Path) -> Path:
    """The hub's cache with `some/model` in it: the llama as revision `main`, and one of other weights as `other`."""
    repository = folder / "models--some--model"
    (repository / "refs").mkdir(parents=True)
    for number, revision in enumerate(("main", "other")):
        commit = f"{number}" * 40
        (repository / "refs" / revision).write_text(commit)
        snapshot = repository / "snapshots" / commit
        shutil.copytree(llama, snapshot)
        weights = load_file(snapshot / "model.safetensors")
        scaled = {name: tensor * (1 + number / 4) for name, tensor in weights.items()}
        save_file(scaled, snapshot / "model.safetensors", {"format": "pt"})
    return folder


def _documents(seed: int) -> list[str]:
    """60 documents of 300 letters, some letters more frequent than others."""
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(26, generator=generator).square()
    drawn = torch.multinomial(share, 60 * 300, replacement=True, generator=generator).view(60, 300)
    return ["".join(chr(97 + letter) for letter in row) + "\n" for row in drawn.tolist()]


def _dataset(folder: Path, texts: dict[str, list[str]]) -> Path:
    """A dataset with two configurations, each with two splits."""
    files = {
        "first": {"train": "text", "test": "other_text"},
        "second": {"train": "third_text", "test": "text"},
    }
    folder.mkdir()
    described = ""
    for name, splits in files.items():
        described += f"- config_name: {name}\n  data_files:\n"
        for split, text in splits.items():
            (folder / f"{name}_{split}.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in texts[text]))
            described += f"  - split: {split}\n    path: {name}_{split}.jsonl\n"
    (folder / "README.md").write_text(f"---\nconfigs:\n{described}---\n")
    return folder


def _saved(folder: Path, texts: dict[str, list[str]]) -> Path:
    """A dataset as `save_to_disk` leaves it, with splits train, a and b."""
    splits = zip(("train", "a", "b"), texts.values(), strict=True)
    datasets.DatasetDict({split: datasets.Dataset.from_dict({"text": t}) for split, t in splits}).save_to_disk(folder)
    return folder


def _finished(folder: Path) -> Path:
    """A finished member, of the table's usual kind and sizes."""
    folder.mkdir()
    generator = torch.Generator().manual_seed(8)
    rows = torch.nn.functional.normalize(torch.randn(24, 32, generator=generator))
    tensors = {"W_enc": rows.T.contiguous(), "b_enc": torch.zeros(24), "W_dec": rows, "b_dec": torch.zeros(32)}
    card = {"hook_name": "blocks.1.hook_resid_post", "training_architecture": "standard"}
    saelens.write(folder, InferenceSae(ReluForm(), tensors, True), card, torch.ones(24))
    return folder


def _with_own_code(folder: Path, llama: Path) -> Path:
    """The llama, as a kind of model whose code lies beside its weights."""
    shutil.copytree(llama, folder)
    (folder / "modeling.py").write_text(OWN_CODE)
    entries = json.loads((folder / "config.json").read_text()) | {"model_type": "own_kind"}
    entries["auto_map"] = {"AutoConfig": "modeling.OwnConfig", "AutoModelForCausalLM": "modeling.OwnModel"}
    (folder / "config.json").write_text(json.dumps(entries))
    return folder
