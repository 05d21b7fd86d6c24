"""Text that a random model expects, so that ablating it costs something."""

import json
import random
import string
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BOS = 1


def as_expected(file: Path, model: Path) -> Path:
    """Documents of letters that follow each other as the model in a folder expects."""
    letters = string.ascii_letters + " .,"
    tokenizer = AutoTokenizer.from_pretrained(model)
    ids_V = torch.tensor([tokenizer.encode(letter, add_special_tokens=False)[0] for letter in letters])
    module = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        logits_VV = module(input_ids=torch.stack([torch.full_like(ids_V, BOS), ids_V], dim=1)).logits[:, 1, ids_V]
    after_VV = logits_VV.mul(2).softmax(-1).tolist()
    generator = random.Random(0)
    texts = []
    for _ in range(300):
        chain = [generator.randrange(len(letters))]
        while len(chain) < 100:
            chain += generator.choices(range(len(letters)), after_VV[chain[-1]])
        texts.append("".join(letters[i] for i in chain))
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return file
