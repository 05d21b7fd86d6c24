"""Conversations and records: what is read of them, and which tokens count. Tokens of the test tokenizer are bytes."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
from transformers import AutoTokenizer

from sae_sweep.cli import main
from sae_sweep.config.files import config_of
from sae_sweep.config.schema import DataConfig
from sae_sweep.data.fields import Wanted, value_at
from sae_sweep.data.records import Bad, LeftOut
from sae_sweep.data.tokens import Tokens, open_tokens
from sae_sweep.errors import ConfigError

TEMPLATE = (
    "<bos>{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "[{{ message.role }}]{{ message.content | trim }}<eos>{% endfor %}"
)
TALK = [
    {"role": "system", "content": "be user"},
    {"role": "user", "content": " hi user "},
    {"role": "assistant", "content": "hello"},
]
LAID_OUT = "<bos>[system]be user<eos>[user]hi user<eos>[assistant]hello<eos>"
BOS, EOS = 1, 0
CONTEXT = 80
"""A row holds the whole conversation."""


@pytest.fixture
def tokenizer(llama_folder: Path) -> Any:
    made = AutoTokenizer.from_pretrained(llama_folder)
    made.chat_template = TEMPLATE
    return made


def written(folder: Path, *records: Any) -> Path:
    file = folder / "records.jsonl"
    file.write_text("\n".join(map(json.dumps, records)))
    return file


def rows(data: DataConfig, tokenizer: Any) -> Tokens:
    return open_tokens(data, 1, tokenizer, 300)


def config(path: Path, **changed: Any) -> DataConfig:
    made = config_of({"data": "text", "data.path": str(path), "data.context": CONTEXT}).data
    return replace(made, **({"chat": True, "packing": "document", "field": "messages"} | changed))


def told(ids: Any, tokenizer: Any) -> tuple[str, str]:
    """A row as text, and under it a mark where a token counts. BOS is ^, EOS is $, and what fills a row is a dot."""
    text, marks = "", ""
    for token in ids.tolist():
        read = token if token >= 0 else ~token
        text += {BOS: "^", EOS: "$" if token >= 0 else "."}.get(read) or tokenizer.decode([read])
        marks += "x" if token >= 0 else " "
    return text, marks


@pytest.mark.parametrize("positions_of", ["all", "user", "assistant"])
def test_the_tokens_of_a_role_are_those_of_its_texts(positions_of: str, tokenizer: Any, tmp_path: Path) -> None:
    """The template's own BOS gives way to the row's; "user" is also a role's name and a word of the system's text."""
    text = "^[system]be user$[user]hi user$[assistant]hello$"
    data = rows(config(written(tmp_path, *[{"messages": TALK}] * 4), positions_of=positions_of), tokenizer)
    shown, counted = told(data.training.block(0)[0][0], tokenizer)
    assert shown[: len(text)].replace(".", "$") == text
    own = {"all": text, "user": "hi user", "assistant": "hello"}[positions_of]
    begin = text.index(own)
    assert [place for place, mark in enumerate(counted) if mark == "x"] == sorted({0, *range(begin, begin + len(own))})


def test_conversations_end_to_end_have_nothing_between_them(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path, *[{"messages": TALK}] * 40)
    data = rows(config(file, packing="concat", context=20), tokenizer)
    block = data.training.block(0)[0]
    assert (block[:, 0] == BOS).all()
    heldout = told(data.heldout[0], tokenizer)[0]
    assert heldout == "^^[system]be user$[u"


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "q"}]},
                {"role": "assistant", "content": "a"},
            ]
        },
        {"prompt": "q", "response": "a"},
        {"instruction": "q", "input": "", "output": "a"},
        {"deep": {"talk": [{"role": "user", "content": "q"}, {"role": "model", "content": "a"}]}},
    ],
)
def test_every_way_to_write_a_conversation(record: Mapping[str, Any]) -> None:
    assert Wanted("deep.talk", chat=True).document(record, "here") == (("user", "q"), ("assistant", "a"))


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "no chat"}, "neither a list of messages"),
        ({"messages": [{"role": "user"}]}, "without a role or a text"),
        ({"messages": ["hi"]}, "without a role or a text"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "without a role or a text"),
        ([1], "must be an object"),
    ],
)
def test_what_is_no_conversation(record: Any, said: str) -> None:
    found = Wanted("messages", chat=True).document(record, "here")
    assert isinstance(found, Bad)
    assert said in found.text


def test_a_template_that_refuses_or_hides_a_message_makes_a_bad_record(tokenizer: Any, tmp_path: Path) -> None:
    bad = {"messages": [{"role": "tool", "content": "x"}]}
    with pytest.raises(ConfigError, match=r"does not fit the chat template .*no tools here"):
        rows(config(written(tmp_path, *[bad] * 3)), tokenizer)
    tokenizer.chat_template = "<bos>{{ messages[0].content | upper }}"
    with pytest.raises(ConfigError, match="it leaves a message out"):
        rows(config(written(tmp_path, {"messages": TALK}), positions_of="user"), tokenizer)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(ConfigError, match="does not show as it is"):
        rows(config(written(tmp_path, {"messages": TALK}), positions_of="user"), tokenizer)


def test_a_tokenizer_without_a_template_is_refused(llama_folder: Path, tmp_path: Path) -> None:
    plain = AutoTokenizer.from_pretrained(llama_folder)
    with pytest.raises(ConfigError, match=r"data\.chat=true: the tokenizer of the model has no chat template"):
        rows(config(written(tmp_path, {"messages": TALK})), plain)


def test_documents_alone_in_their_rows_are_filled_up(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path, *[{"text": "abcdefghijkl"}, {"text": "xyz"}] * 3)
    data = rows(config(file, chat=False, field="text", context=8), tokenizer)
    found = {told(row, tokenizer) for row in data.training.block(0)[0]}
    assert found == {("^abcdefg", "x" * 8), ("^hijkl..", "x" * 6 + "  "), ("^xyz....", "x" * 4 + "    ")}


def test_a_field_of_a_field() -> None:
    record = {"meta": {"text": "inside", "a.b": 1}, "meta.text": "outside"}
    assert value_at(record, "meta.text") == "outside"
    assert Wanted("meta.text").document({"meta": {"text": "inside"}}, "here") == "inside"
    assert value_at({"meta": {"text": None}}, "meta.text") is None


def test_a_filter_reads_the_records_that_agree() -> None:
    wanted = Wanted("text", filter={"lang": ["en", "de"], "meta.score": 3})
    records = [
        {"text": "1", "lang": "en", "meta": {"score": 3}},
        {"text": "2", "lang": "fr", "meta": {"score": 3}},
        {"text": "3", "lang": "de", "meta": {"score": "3"}},  # CSV has words only
        {"text": "4", "lang": "de"},
    ]
    assert [wanted.document(record, "here") for record in records] == ["1", LeftOut(), "3", LeftOut()]


def test_a_filter_that_leaves_nothing_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path, *[{"text": "a" * 50, "lang": "fr"}] * 3)
    with pytest.raises(ConfigError, match=r"data\.filter leaves out each of its 3 records"):
        rows(config(file, chat=False, field="text", filter={"lang": "en"}, context=8), tokenizer)


def test_datasets_have_filters_nested_fields_and_conversations(tokenizer: Any, tmp_path: Path) -> None:
    records = [{"meta": {"text": "abcdefg"}, "lang": "en"}, {"meta": {"text": "qrstuvw"}, "lang": "fr"}] * 4
    datasets.Dataset.from_list(records).save_to_disk(tmp_path / "nested")
    chosen = {"kind": "hub", "chat": False, "field": "meta.text", "context": 8, "packing": "document"}
    data = rows(config(tmp_path / "nested", **chosen, filter={"lang": "en"}), tokenizer)
    assert {told(row, tokenizer)[0] for row in data.training.block(0)[0]} == {"^abcdefg"}
    with pytest.raises(ConfigError, match=r"data\.filter: language is no column of"):
        rows(config(tmp_path / "nested", **chosen, filter={"language": "en"}), tokenizer)
    datasets.Dataset.from_list([{"messages": TALK}] * 4).save_to_disk(tmp_path / "chats")
    data = rows(config(tmp_path / "chats", kind="hub", positions_of="assistant"), tokenizer)
    assert (data.heldout[0] >= 0).sum() == 1 + 5


def test_a_folder_is_read_whole(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    written(tmp_path / "in", *[{"text": "abcdefg"}] * 3)
    (tmp_path / "a.txt").write_text("tuvwxyz")
    (tmp_path / "ignored.bin").write_bytes(b"\0")
    data = rows(config(tmp_path, chat=False, field="text", context=8), tokenizer)
    seen = {told(row, tokenizer)[0] for row in (*data.training.block(0)[0], *data.heldout)}
    assert seen == {"^abcdefg", "^tuvwxyz"}


def test_a_chat_sweep_counts_what_a_hand_written_mask_counts(
    llama_folder: Path, tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five tokens of each answer: "hello" in 64 held-out rows of one conversation each."""
    model = tmp_path / "model"
    model.mkdir()
    for file in llama_folder.iterdir():
        (model / file.name).symlink_to(file)
    (model / "chat_template.jinja").write_text(TEMPLATE)
    file = written(tmp_path, *[{"messages": TALK}] * 200)
    command = (
        f"model=local model.path={model} site.layer=1 data=text data.path={file} data.chat=true data.context=60"
        " data.positions_of=assistant data.packing=document data.block_rows=64 evaluation.tokens=1200 sae=topk sae.k=3"
        f" sae.width=24 training.tokens=640 training.batch_size=32 tracking=none name=chat output_dir={tmp_path}"
    )
    assert main([*command.split(), "data.field=messages"]) == 0, capsys.readouterr().err
    (found,) = (tmp_path / "chat").glob("*/metrics.json")
    assert json.loads(found.read_text())["tokens_evaluated"] == 20 * len("hello")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("data=demo data.chat=true", "data.chat=true is not read with data.kind=demo"),
        ("data=tokens data.path={file} data.packing=document", "data.packing=document is not read with"),
        ("data=text data.path={file} data.positions_of=user", "give data.chat=true"),
        ("data=text data.path={file} data.packing=loose", "not one of concat, document"),
        ("data=text data.path={file} data.filter=en", "data.filter=en is not"),
    ],
)
def test_keys_that_do_not_go_together(
    overrides: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, {"text": "a" * 3000})
    assert main([*overrides.format(file=file).split(), f"output_dir={tmp_path}", "dry_run=true"]) == 2
    assert said in capsys.readouterr().err
