"""Other content under the same name is noticed, file by file, and the same content that was only touched is not."""

import os
import platform
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

from sae_sweep.config.files import config_of
from sae_sweep.config.schema import MemberConfig
from sae_sweep.data import hub_commit
from sae_sweep.data.kinds import demo
from sae_sweep.errors import ConfigError
from sae_sweep.folder.record import check_content, member_entry
from sae_sweep.plan import fingerprints
from sae_sweep.plan.groups import plan_sweep


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(fingerprints, "SMALL_BYTES", 2**20)  # the model is larger, all else smaller
    shutil.copytree(str(files("sae_sweep") / "assets" / "demo_lm"), tmp_path / "lm")
    (tmp_path / "a.txt").write_text("some text\n" * 100)
    (tmp_path / "held.txt").write_text("other text\n" * 100)
    return tmp_path


def config(place: Path, **more: Any) -> MemberConfig:
    asked = {"model": "local", "model.path": str(place / "lm"), "data": "text", "data.path": str(place / "*.txt")}
    return config_of({**asked, "name": "mine", "tracking": "none", **more})


def entries(place: Path, state: str = "finished", **more: Any) -> dict[str, Any]:
    (member,) = plan_sweep([config(place, **more)]).members
    content = fingerprints.hashed(fingerprints.fingerprints(member.config))
    return {"one": {**member_entry(member, content), "state": state}}


def grown(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def edited(file: Path) -> None:
    """Of the same size, and of the same time."""
    state = file.stat()
    file.write_bytes(b"S" + file.read_bytes()[1:])
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))


def saved_again(file: Path) -> None:
    """Of the same size, at another time."""
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")
    os.utime(file, ns=(1, 1))


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("a.txt", grown, "data.path=.*a.txt has changed from 1,000 to 1,001 bytes"),
        ("a.txt", edited, "data.path=.*a.txt has other content of the same size"),
        ("a.txt", lambda file: file.rename(file.with_name("b.txt")), "data.path=.*a.txt has gone"),
        ("c.txt", lambda file: file.write_text("more"), "data.path=.*c.txt has come"),
        ("lm/model.safetensors", saved_again, "model.path=.*model.safetensors has other content of the same size"),
        ("lm/model.safetensors", grown, "model.path=.*model.safetensors has changed"),
        (
            "lm/config.json",
            lambda file: file.write_text(file.read_text() + " "),
            "model.path=.*config.json has changed",
        ),
        ("lm/tokenizer.json", edited, "model.path=.*tokenizer.json has other content"),
    ],
)
def test_what_changed_is_named(file: str, change: Callable[[Path], Any], said: str, place: Path) -> None:
    """Whatever is asked now: the member itself, or others on the same names."""
    here = entries(place)
    change(place / file)
    for l0 in (32.0, 8.0):
        with pytest.raises(ConfigError, match=said + ".*since one was begun; restore it, or give another name="):
            check_content(plan_sweep([config(place, **{"sae.l0": l0})]), here)


def test_the_same_content_is_accepted(place: Path) -> None:
    here = entries(place)
    for file in place.rglob("*"):
        os.utime(file, ns=(5, 5))
    check_content(plan_sweep([config(place)]), here)


def test_many_files_are_known_together(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of sweep.json for all of them, in which an edit of one shows, and a touch of one does not."""
    monkeypatch.setattr(fingerprints, "MANY", 1)
    here = entries(place)
    assert list(here["one"]["content"]["data.path"]["files"]) == ["one of 2 files"]
    os.utime(place / "a.txt", ns=(5, 5))
    check_content(plan_sweep([config(place)]), here)
    edited(place / "held.txt")
    with pytest.raises(ConfigError, match=r"data.path=.*one of 2 files has other content"):
        check_content(plan_sweep([config(place)]), here)


def test_another_name_is_another_thing(place: Path) -> None:
    """The weights of another folder, the text of another file."""
    here = entries(place, **{"data.path": str(place / "a.txt")})
    shutil.copytree(place / "lm", place / "other")
    for changed in ("other/model.safetensors", "held.txt"):
        grown(place / changed)
    more = {"model.path": str(place / "other"), "data.path": str(place / "held.txt")}
    check_content(plan_sweep([config(place, **more)]), here)


def test_a_heldout_file_of_its_own(place: Path) -> None:
    own = {"data.path": str(place / "a.txt"), "data.heldout_path": str(place / "held.txt")}
    here = entries(place, **own)
    grown(place / "held.txt")
    with pytest.raises(ConfigError, match=r"data.heldout_path=.*held.txt has changed"):
        check_content(plan_sweep([config(place, **own)]), here)


def test_what_may_have_been_mended_or_says_nothing(place: Path) -> None:
    failed, old = entries(place, "failed"), entries(place)
    del old["one"]["content"]
    grown(place / "a.txt")
    check_content(plan_sweep([config(place)]), failed)
    check_content(plan_sweep([config(place)]), old)


def test_a_checkpoint_of_a_member_that_failed(place: Path) -> None:
    """Its text may have been mended; its model is the one that it goes on with."""
    failed, plan = entries(place, "failed"), plan_sweep([config(place)])
    grown(place / "a.txt")
    check_content(plan, failed, resumed={failed["one"]["identity"]})
    grown(place / "lm" / "model.safetensors")
    check_content(plan, failed)
    with pytest.raises(ConfigError, match=r"model.path=.*model.safetensors has changed"):
        check_content(plan, failed, resumed={failed["one"]["identity"]})


def test_a_model_of_the_hub_that_has_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--org--small" / "refs"
    asked = config_of({"model": "local", "model.path": "org/small", "data": "demo"})
    assert "model.path" not in fingerprints.fingerprints(asked)
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    kept = fingerprints.hashed(fingerprints.fingerprints(asked))
    fingerprints.check_same(kept, asked, "one")
    (refs / "main").write_text("b" * 40)
    with pytest.raises(ConfigError, match=r"model.path=org/small@main: it has moved from commit a{12} to b{12} since"):
        fingerprints.check_same(kept, asked, "one")


def test_a_dataset_that_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is opened at the commit that is asked for once, and known by that."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub_commit, "_ASKED", {})
    asked = config_of({"model": "demo", "data": "hub", "data.path": "org/text"})
    assert "data.path" not in fingerprints.fingerprints(asked)
    infos = []
    info = SimpleNamespace(sha="a" * 40)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda self, name, timeout: infos.append(name) or info)
    assert hub_commit.ask_commit("org/text") == hub_commit.ask_commit("org/text") == "a" * 40
    assert infos == ["org/text"]
    kept = fingerprints.hashed(fingerprints.fingerprints(asked))
    assert fingerprints.digests(kept)["data.path"] == "a" * 40
    monkeypatch.setattr(hub_commit, "_ASKED", {"org/text": "b" * 40})
    with pytest.raises(ConfigError, match=r"data.path=org/text train: it has moved from commit a{12} to b{12} since"):
        fingerprints.check_same(kept, asked, "one")
    monkeypatch.setattr(hub_commit, "_ASKED", {"org/text": None})
    fingerprints.check_same(kept, asked, "one")


def test_the_embedded_text_is_that_of_an_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "demo_root", lambda: tmp_path)
    monkeypatch.setattr(fingerprints, "MANY", 1)
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(name)
    asked = config_of({"model": "demo", "data": "demo"})
    fingerprints._own.cache_clear()
    kept = fingerprints.hashed(fingerprints.fingerprints(asked))
    assert (kept["data"]["reference"], kept["data"]["whose"]) == ("demo", f"Python {platform.python_version()}")
    (about,) = kept["data"]["files"].values()
    assert about["bytes"] == len("one.pytwo.py")
    fingerprints.check_same(kept, asked, "one")
    edited(tmp_path / "two.py")
    fingerprints._own.cache_clear()
    with pytest.raises(ConfigError, match="data=demo: one of 2 files has other content of the same size since"):
        fingerprints.check_same(kept, asked, "one")
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.0")
    fingerprints._own.cache_clear()
    with pytest.raises(ConfigError, match=r"data=demo: its text is that of Python 3.99.0, which was that of Python 3"):
        fingerprints.check_same(kept, asked, "one")
    fingerprints._own.cache_clear()


def test_a_digest_is_of_what_files_hold(place: Path) -> None:
    """Not of where or when they lie."""

    def found() -> dict[str, str]:
        return fingerprints.digests(fingerprints.hashed(fingerprints.fingerprints(config(place))))

    before = found()
    assert set(before) == {"model.path", "model.path (its tokenizer)", "data.path"}
    for file in place.rglob("*"):
        os.utime(file, ns=(7, 7))
    (place / "a.txt").rename(place / "b.txt")
    assert found() == before
    edited(place / "held.txt")
    assert {key for key, value in found().items() if value != before[key]} == {"data.path"}


def test_toy_data_have_none(tmp_path: Path) -> None:
    assert fingerprints.fingerprints(config_of({"data": "toy", "site": "resid_post"})) == {}
