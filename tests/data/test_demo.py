"""The demo corpus keeps its promises, and the language model that ships has learnt from it."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast

import sae_sweep
from sae_sweep.data.kinds.demo import demo_documents, demo_files, is_heldout
from scripts import demo_text, train_demo_lm

ROOT = Path(__file__).resolve().parents[2]
DEMO_LM = Path(sae_sweep.__file__).parent / "assets" / "demo_lm"
HELDOUT_TOKENS = 8192
CONTEXT = 256


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(DEMO_LM, local_files_only=True)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.float32, local_files_only=True)


# ---- the corpus ----------------------------------------------------------------------------------


def test_splits_are_disjoint_and_cover_the_corpus() -> None:
    train, heldout = demo_files("train"), demo_files("heldout")
    assert set(train).isdisjoint(heldout)
    assert sorted(train + heldout) == demo_files()
    assert len(train) > 300
    assert len(heldout) > 10


def test_file_list_is_sorted_and_the_same_every_time() -> None:
    files = demo_files()
    assert files == sorted(set(files))
    assert files == demo_files()


def test_split_depends_on_the_path_alone() -> None:
    # Written out: a change here would let the shipped model be judged on files that it was trained on.
    assert is_heldout("functools.py")
    assert is_heldout("asyncio/events.py")
    assert not is_heldout("argparse.py")
    digest = hashlib.sha256(b"json/decoder.py").hexdigest()
    assert is_heldout("json/decoder.py") == (int(digest, 16) % 20 == 0)


def test_only_the_librarys_own_sources() -> None:
    unwanted = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"}
    for file in demo_files():
        assert file.endswith(".py")
        assert unwanted.isdisjoint(file.split("/")), file
        assert "_sysconfigdata" not in file
        assert not file.startswith("config-")


def test_documents_follow_the_files_and_are_never_empty() -> None:
    documents = list(demo_documents("heldout"))
    assert 0 < len(documents) <= len(demo_files("heldout"))
    assert all(documents)
    assert any(document.startswith('"""functools.py') for document in documents)


def test_corpus_needs_no_torch() -> None:
    code = "import sys, sae_sweep.data.kinds.demo as demo; demo.demo_files(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- the model -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "def area(r):\n    return 3.14 * r ** 2  # of a disc .\n",
        "\ttabs,  double  spaces \n\n\n trailing ",
        "naïve café, 日本語, \U0001f40d, \x00\x7f",
        " leading space",
    ],
)
def test_tokenizer_gives_any_text_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_tokenizer_has_one_special_token_and_adds_none(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == 4096
    assert tokenizer.bos_token == tokenizer.eos_token == "<|endoftext|>"
    assert tokenizer.all_special_ids == [tokenizer.bos_token_id]
    assert tokenizer.bos_token_id not in tokenizer("import os").input_ids
    assert tokenizer("<|endoftext|>").input_ids == [tokenizer.bos_token_id]


def test_model_agrees_with_its_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    assert model.config.vocab_size == len(tokenizer)
    assert model.config.bos_token_id == model.config.eos_token_id == tokenizer.bos_token_id
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight


@pytest.mark.evidence
def test_model_has_learnt_more_than_a_bigram(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    train = demo_text.stream(demo_text.encode(tokenizer, list(demo_documents("train"))))
    heldout = demo_text.stream(demo_text.encode(tokenizer, list(demo_documents("heldout"))))
    rows = demo_text.pack(heldout, CONTEXT)
    rows = rows[:: max(1, len(rows) * CONTEXT // HELDOUT_TOKENS)]  # from every part of the split, not from one file
    bigram = demo_text.bigram_cross_entropy(train, rows)
    assert bigram < demo_text.unigram_cross_entropy(train, rows)
    assert train_demo_lm.model_cross_entropy(model, rows) < bigram - 1.3
