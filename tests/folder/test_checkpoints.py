import json
from pathlib import Path

import pytest

from sae_sweep.folder.checkpoints import (
    Checkpoint,
    Company,
    Damaged,
    MemberRecord,
    StateFolder,
    read_checkpoint,
    write_state,
)


def saved(identity: str, step: int) -> MemberRecord:
    return MemberRecord(identity, f"member-{identity}", step, 1, True, None, 2, 0, 30, step)


def keep(company: Company, *members: MemberRecord) -> Checkpoint:
    with company.writing() as folder:
        checkpoint = Checkpoint(folder, 3, "stamp", 1000.0, members)
        write_state(checkpoint)
    return checkpoint


def break_while_writing(company: Company, error: BaseException) -> None:
    with company.writing() as folder:
        (folder / "half").write_bytes(b"half")
        raise error


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "sweep")


def test_state_is_read_back(state: StateFolder) -> None:
    company = state.company("group", ["a", "b"])
    keep(company, saved("a", 5), saved("b", 7))
    newest = company.newest
    assert newest is not None
    assert (newest.block, newest.stamp, newest.time, newest.step) == (3, "stamp", 1000.0, 7)
    assert newest.members == (saved("a", 5), saved("b", 7))


def test_the_two_newest_are_kept(state: StateFolder) -> None:
    company = state.company("group", ["a"])
    for step in range(4):
        keep(company, saved("a", step))
    assert [folder.name for folder in company.folders()] == ["00000004", "00000003"]
    assert company.newest is not None
    assert company.newest.step == 3


def test_what_another_worker_writes_meanwhile_stays(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(state.company("group", ["a"]), saved("a", 5))
    other, listed = state.company("other", ["b"]), state.companies

    def then_another() -> list[Company]:
        found = listed()
        keep(other, saved("b", 1))
        return found

    monkeypatch.setattr(state, "companies", then_another)
    state.prune({"a"})
    assert [company.path.name for company in listed()] == [other.path.name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_survives_a_write_that_fails(state: StateFolder, error: BaseException) -> None:
    company = state.company("group", ["a"])
    for step in (1, 2):
        keep(company, saved("a", step))
    with pytest.raises(type(error)):
        break_while_writing(company, error)
    assert sorted(path.name for path in company.path.iterdir()) == ["00000001", "00000002"]


def test_what_a_kill_left_is_no_checkpoint_and_is_removed(state: StateFolder) -> None:
    company = state.company("group", ["a"])
    keep(company, saved("a", 1))
    (company.path / ".00000002.abcd.tmp").mkdir()
    (company.path / ".00000002.abcd.tmp" / "state.json").write_text("{")
    assert company.newest is not None
    assert company.newest.step == 1
    keep(company, saved("a", 2))
    assert sorted(path.name for path in company.path.iterdir()) == ["00000001", "00000002"]


def test_any_flipped_bit_of_state_json_is_noticed(state: StateFolder) -> None:
    company = state.company("group", ["a"])
    keep(company, saved("a", 1))
    file = company.folders()[0] / "state.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        flipped = whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :]
        if json_of(flipped) != json_of(whole):  # a tab for a space changes nothing
            file.write_bytes(flipped)
            with pytest.raises(Damaged):
                read_checkpoint(file.parent)


def json_of(contents: bytes) -> object:
    try:
        return json.loads(contents)
    except ValueError:
        return None


def test_another_version_is_not_read(state: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    company = state.company("group", ["a"])
    keep(company, saved("a", 1))
    monkeypatch.setattr("sae_sweep.folder.checkpoints.VERSION", 2)
    with pytest.raises(Damaged, match="version 1, and this program reads version 2"):
        read_checkpoint(company.folders()[0])
    assert company.newest is None


def test_a_member_goes_on_where_it_is_furthest(state: StateFolder) -> None:
    """A subset of the members was trained on in between."""
    keep(state.company("group", ["a", "b", "c"]), saved("a", 5), saved("b", 5), saved("c", 5))
    keep(state.company("group", ["a", "b"]), saved("a", 9), saved("b", 9))
    assert {identity: home.step for identity, home in state.homes().items()} == {"a": 9, "b": 9, "c": 5}


def test_what_nobody_needs_is_removed(state: StateFolder) -> None:
    both, one = state.company("group", ["a", "b"]), state.company("group", ["a"])
    keep(both, saved("a", 5), saved("b", 5))
    keep(one, saved("a", 9))
    state.prune({"a"})
    assert (both.path.exists(), one.path.exists()) == (True, False)
    state.prune({"a", "b"})
    assert not both.path.exists()


def test_the_oldest_makes_room(state: StateFolder) -> None:
    company = state.company("group", ["a"])
    keep(company, saved("a", 1))
    assert not company.drop_oldest()
    keep(company, saved("a", 2))
    assert company.drop_oldest()
    assert [folder.name for folder in company.folders()] == ["00000002"]


def test_progress_is_read_back_and_missing_is_empty(state: StateFolder) -> None:
    assert state.progress() == {}
    state.path.mkdir(parents=True)
    state.beat({"eta": 3.0})
    assert state.progress()["eta"] == 3.0
    (state.path / "progress.json").write_text("{")
    assert state.progress() == {}
