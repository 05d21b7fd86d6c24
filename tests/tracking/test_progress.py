import io
import json
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from sae_sweep.config.values import duration
from sae_sweep.tracking import progress
from sae_sweep.tracking.display import Place, Shown, rows
from sae_sweep.tracking.pace import Kind, Workload
from sae_sweep.tracking.progress import Progress


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


def work(tokens: float = 1000, *, blocks: int = 4, judgements: int = 1, judging: float = 0) -> Workload:
    """Ten operations of the model and one of the steps for each token."""
    flops = {Kind.MODEL: 10 * tokens, Kind.STEPS: tokens, Kind.JUDGING: judging}
    return Workload(flops, blocks, judgements, tokens, 2 * tokens)


def placed(labels: list[str]) -> dict[str, Place]:
    """Each in the bank that its name says, of five, at one of three sparsities."""
    return {
        label: Place(f"bank {index % 5}", f"bank {index % 5}, l0 {8 * (1 + index // 5 % 3)}")
        for index, label in enumerate(labels)
    }


def begun(console: Console, labels: list[str], one: Workload, tokens_done: int = 0, blocks_done: int = 0) -> Progress:
    made = Progress("group", console)
    made.expect([one])
    made.begin(placed(labels), tokens_done, blocks_done)
    return made


def test_a_plain_line_now_and_then(clock: Clock) -> None:
    console = plain()
    with begun(console, ["gated-l1_0.0006-x16"], work(2_000_000, blocks=1)) as shown:
        shown.read(0, 1.0)
        shown.place(0, 0)
        for step in range(1, 41):
            clock.now += 1
            shown.update(step * 3_000, {"gated-l1_0.0006-x16": (23.14, 0.3111)})
    lines = said(console)
    assert len(lines) == 4  # at 0, 15 and 30 s, and the last
    assert lines[2] == (
        "4% 90k/2M tokens  ETA 10m37s  SAEs 3k tok/s  epoch 0  block 0  gated-l1_0.0006-x16 l0=23.1 fvu=0.311"
    )
    assert lines[-1].startswith("6% 120k/2M tokens")


def test_many_members_in_a_line(clock: Clock) -> None:
    labels = [f"m{index}" for index in range(5)]
    shown = begun(plain(), labels, work())
    shown.read(0, 0.0)
    clock.now += 10
    shown.read(0, 1.0)  # a quarter of 10,000 operations, at 250 a second
    clock.now += 10
    shown.place(1, 7)
    shown.update(500, {label: (float(index), index / 10) for index, label in enumerate(labels)})
    assert shown.line() == (  # three blocks in 30 s, and the other half of the steps in 10
        "50% 500/1k tokens  ETA 40s  model 50 tok/s  SAEs 50 tok/s  epoch 1  block 7  "
        "5 members (min/median/max)  l0=0.0/2.0/4.0  fvu=0.000/0.200/0.400"
    )


def test_each_kind_of_work_has_its_own_rate(clock: Clock) -> None:
    """A block of 2,500 operations takes 100 s, its 250 steps 50 s; judging, 500 operations, goes as the model does
    until it is seen to be slower."""
    shown = begun(plain(), ["m"], work(judging=500, judgements=2))
    shown.read(0, 0.0)
    clock.now += 100
    shown.read(0, 1.0)
    clock.now += 50
    shown.update(250, {})
    assert shown.eta == pytest.approx(3 * (100 + 50) + 500 / 25)
    clock.now += 40
    shown.judging(1.0, 1, last=False)  # 250 operations in 40 s
    assert shown.eta == pytest.approx(3 * (100 + 50) + 40)


def test_passes_to_come_count(clock: Clock) -> None:
    shown = begun(plain(), ["m"], work())
    shown.expect([work(), work(2000)])
    shown.read(0, 0.0)
    clock.now += 100
    shown.read(0, 1.0)
    assert shown.eta == pytest.approx(300 + 400 * 2 + 1000 / 25 + 2000 / 25)  # steps are taken to go as the model does
    shown.end()
    assert shown.eta == pytest.approx(800 + 2000 / 25)


def test_what_is_done_once_is_no_rate(clock: Clock) -> None:
    console = plain()
    shown = begun(console, ["m"], work())
    shown.read(0, 0.0)
    shown.stage("compiling loops, once")
    shown.stage("compiling loops, once")
    clock.now += 1000
    shown.read(0, 0.5)
    clock.now += 10
    shown.read(0, 1.0)  # 1,250 operations
    assert shown.eta == pytest.approx((7500 + 1000) / 125)
    assert said(console)[1:2] == ["group: compiling loops, once"]


def test_a_block_made_ahead_costs_what_is_waited_for(clock: Clock) -> None:
    shown = begun(plain(), ["m"], work())
    shown.read(0, 0.0)
    thread = Thread(target=shown.read, args=(0, 0.5))
    thread.start()
    thread.join()
    clock.now += 5
    shown.read(0, 1.0)
    assert shown.eta == pytest.approx((7500 + 1000) / 500)


def test_a_resumed_group_rates_its_own_work(clock: Clock) -> None:
    shown = begun(plain(), ["m"], work(), 750, 3)
    shown.update(750, {})
    clock.now += 10
    shown.update(1000, {})
    assert shown.eta == pytest.approx(2500 / 25)  # a block is left to be read


def test_due_follows_the_display(clock: Clock) -> None:
    shown = begun(plain(), ["m"], work())
    assert shown.due
    shown.update(1, {})
    assert not shown.due
    clock.now += progress.PLAIN_SECONDS
    assert shown.due


def test_messages_stay_and_are_not_markup() -> None:
    console = plain()
    with Progress("group", console) as shown:
        shown.message("[bold]m: resampled 12 latents[/bold]")
    assert said(console) == ["[bold]m: resampled 12 latents[/bold]"]


@pytest.mark.parametrize("members", [2, 60])
def test_live_display_on_a_terminal(clock: Clock, members: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=160, height=30)
    labels = [f"gated-{index}" for index in range(members)]
    shown = Progress("2 banks", console)
    with shown:
        shown.stage("loading the model")
        shown.expect([work(2000, blocks=1)])
        shown.read(0, 1.0)
        shown.begin(placed(labels), 0, 0)
        shown.update(0, {})
        clock.now += 2
        shown.place(0, 3)
        shown.state("gated-1", "failed")
        shown.message("a line that stays")
        shown.update(1000, dict.fromkeys(labels, (12.5, 0.25)))
    text = "\n".join(said(console))
    for expected in ("2 banks", "loading the model", "50%", "SAEs 500 tok/s", "ETA 2s", "block 3", "12.5", "failed"):
        assert expected in text
    assert "a line that stays" in text
    assert ("bank 2, l0 16" in text) == (members == 60)
    assert ("gated-1 " in text) == (members == 2)


def stand(count: int) -> list[Shown]:
    made = placed([f"m{index}" for index in range(count)])
    return [Shown(label, place, "training", (float(i), i / 100)) for i, (label, place) in enumerate(made.items())]


def test_as_many_rows_as_there_is_room_for() -> None:
    """60 members in 5 banks at 3 sparsities: members, else banks and sparsities, else banks, else three rows."""
    assert len(rows(stand(20), 20)) == 20
    assert len(rows(stand(20), 19)) == 15
    assert len(rows(stand(60), 50)) == 15
    assert rows(stand(60), 15)[0] == ("bank 0, l0 8", "22.5", "0.225", "4 training")  # members 0, 15, 30, 45
    assert len(rows(stand(60), 14)) == 5
    assert rows(stand(60), 5)[4] == ("bank 4", "31.5", "0.315", "12 training")
    assert rows(stand(60), 4) == [
        ("min of 60 members", "0.0", "0.000", "60 training"),
        ("median of 60 members", "29.5", "0.295", ""),
        ("max of 60 members", "59.0", "0.590", ""),
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (200, 50)])
@pytest.mark.parametrize("members", [3, 20, 60, 300])
def test_a_screen_fits(clock: Clock, members: int, width: int, height: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, record=True)
    labels = [f"gated-l0_{index}-x16-L3-lr_0.0001-s{index}" for index in range(members)]
    shown = Progress("a_sweep_with_a_long_name", console)
    shown.expect([work(2e8, blocks=4)])
    shown.read(0, 0.5)
    clock.now += 10
    shown.read(0, 1.0)
    shown.begin(placed(labels), 0, 0)
    shown.update(100_000_000, dict.fromkeys(labels, (12.5, 0.25)))
    console.print(shown._render())
    lines = console.export_text().splitlines()
    assert len(lines) < height
    assert all(len(line) <= width for line in lines)
    assert "50%" in lines[0]
    assert "ETA" in lines[0]
    assert "12.5" in lines[-1]


@pytest.mark.parametrize(("seconds", "text"), [(4.6, "5s"), (250, "4m10s"), (7500, "2h05m")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_judging_shows_its_share(clock: Clock) -> None:
    console = plain()
    with begun(console, ["m"], work(blocks=1, judging=1000)) as shown:
        shown.update(1000, {})
        shown.judging(0.0, 8)  # the first and the last one are always shown
        shown.judging(0.1, 8)  # too soon
        clock.now += 20
        shown.judging(0.4, 8)
        shown.judging(1.0, 8)
    lines = [line for line in said(console) if "judging" in line]
    assert [line.partition("judging 8 members, ")[2] for line in lines] == ["0%", "40%", "100%"]


def test_what_a_status_is_made_of(clock: Clock) -> None:
    shown = begun(plain(), ["m"], work(blocks=1))
    assert (shown.eta, shown.doing) == (None, "")
    shown.read(0, 1.0)
    clock.now += 10
    shown.place(1, 7)
    shown.update(500, {})
    assert (shown.eta, shown.doing) == (10.0, "epoch 1  block 7")
    shown.judging(0.4, 2)
    assert shown.doing == "judging 2 members, 40%"


def test_the_end_is_known_from_a_tenth_of_the_way(clock: Clock) -> None:
    """What the display was told in a run on two cores that others used too: SmolLM2-135M, two members of 4,096 latents,
    16,000 tokens, 2,048 held out. Judging took the last third."""
    recorded = json.loads((Path(__file__).parent / "smollm2.json").read_text())
    shown, began, truth = Progress("smollm2", plain()), clock.now, recorded[-1][0]
    guesses = []
    for seconds, what, told in recorded[:-1]:
        clock.now = began + seconds
        match what:
            case "expect":
                flops = {Kind(kind): number for kind, number in told[0]["flops"].items()}
                rest = (told[0]["blocks"], told[0]["judgements"], told[0]["tokens"])
                shown.expect([Workload(flops, *rest, told[0]["read"])])
            case "begin":
                shown.begin(placed(["topk", "gated"]), *told)
            case "update":
                shown.update(told[0], {})
            case "judging":
                shown.judging(told[0], told[1], last=told[2])
            case _:
                getattr(shown, what)(*told)
        if shown.eta is not None and seconds > truth / 10:
            guesses.append(seconds + shown.eta)
    assert len(guesses) > 15
    assert all(0.75 * truth < guess < 1.25 * truth for guess in guesses)
