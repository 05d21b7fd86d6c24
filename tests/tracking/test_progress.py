import io

import pytest
from rich.console import Console

from sae_sweep.tracking import progress
from sae_sweep.tracking.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "monotonic", made)
    return made


def plain() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_plain_line_now_and_then(clock: Clock) -> None:
    console = plain()
    with Progress("group", 2_000_000, ["gated-l1_0.0006-x16"], 0, console) as shown:
        for step in range(1, 41):
            clock.now += 1
            shown.update(step * 3_000, {"gated-l1_0.0006-x16": (23.14, 0.3111)})
    lines = said(console)
    assert len(lines) == 4  # at 1, 16 and 31 s, and the last
    assert lines[1] == "2% 48k/2M tokens  3k tok/s  ETA 10m51s  gated-l1_0.0006-x16 l0=23.1 loss=0.311"
    assert lines[-1].startswith("6% 120k/2M tokens")


def test_many_members_in_a_line(clock: Clock) -> None:
    shown = Progress("group", 1000, [f"m{index}" for index in range(5)], 0, plain())
    clock.now += 10
    shown.place(1, 7)
    shown.update(500, {f"m{index}": (float(index), 10.0 * index) for index in range(5)})
    assert shown.line() == (
        "50% 500/1k tokens  50 tok/s  ETA 10s  epoch 1  block 7  "
        "5 members (min/median/max)  l0=0.0/2.0/4.0  loss=0/20/40"
    )


def test_a_resumed_group_rates_its_own_work(clock: Clock) -> None:
    shown = Progress("group", 1000, ["m"], 800, plain())
    clock.now += 10
    shown.update(900, {})
    assert "10 tok/s  ETA 10s" in shown.line()


def test_due_follows_the_display(clock: Clock) -> None:
    shown = Progress("group", 1000, ["m"], 0, plain())
    assert shown.due
    shown.update(1, {})
    assert not shown.due
    clock.now += progress.PLAIN_SECONDS
    assert shown.due


def test_messages_stay_and_are_not_markup() -> None:
    console = plain()
    with Progress("group", 1000, ["m"], 0, console) as shown:
        shown.message("[bold]m: resampled 12 latents[/bold]")
    assert said(console)[0] == "[bold]m: resampled 12 latents[/bold]"


def test_nothing_done_yet_has_no_rate() -> None:
    console = plain()
    with Progress("group", 0, [], 0, console):
        pass
    assert said(console) == ["0% 0/1 tokens"]


@pytest.mark.parametrize("members", [2, 60])
def test_live_display_on_a_terminal(clock: Clock, members: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140, height=30)
    labels = [f"gated-{index}" for index in range(members)]
    with Progress("2 banks", 2000, labels, 0, console) as shown:
        clock.now += 2
        shown.place(0, 3)
        shown.state("gated-1", "failed")
        shown.message("a line that stays")
        shown.update(1000, dict.fromkeys(labels, (12.5, 0.25)))
    text = "\n".join(said(console))
    for expected in ("2 banks", "50%", "500 activations/s", "ETA 2s", "block 3", "12.5", "failed", "a line that stays"):
        assert expected in text
    assert ("median of 60 members" in text) == (members == 60)


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5s"), (250, "4m10s"), (7500, "2h05m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_judging_shows_its_share(clock: Clock) -> None:
    console = plain()
    with Progress("group", 1000, ["m"], 0, console) as shown:
        shown.update(1000, {})
        shown.judging(0.1)  # too soon after the last line
        clock.now += 20
        shown.judging(0.4)
        shown.judging(1.0)  # the last one is always shown
    assert [line.partition("judging ")[2] for line in said(console) if "judging" in line] == ["40%", "100%"]


def test_what_a_status_is_made_of(clock: Clock) -> None:
    shown = Progress("group", 1000, ["m"], 0, plain())
    assert (shown.eta, shown.doing) == (None, "")
    clock.now += 10
    shown.place(1, 7)
    shown.update(500, {})
    assert (shown.eta, shown.doing) == (10.0, "epoch 1  block 7")
    shown.judging(0.4)
    assert shown.doing == "judging 40%"
