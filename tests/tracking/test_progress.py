import io
import json
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console

from sae_sweep.config.values import duration
from sae_sweep.tracking import pace, progress
from sae_sweep.tracking.display import Place, Shown, rows
from sae_sweep.tracking.progress import Progress
from sae_sweep.tracking.workload import Kind, Steps, StepWork, Workload


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    for module in (pace, progress):
        monkeypatch.setattr(module, "monotonic", made)
    return made


def plain() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def work(
    tokens: int = 1000, labels: Iterable[str] = ("m",), *, blocks: int = 4, judgements: int = 1, judging: float = 0
) -> Workload:
    """Ten operations of the model and one of the steps, which take a token each, for each token of each member."""
    one = StepWork(steps=tokens, batch=1, width=8, fixed=1, full=0, l0=None)
    flops = {Kind.MODEL: 10.0 * tokens, Kind.JUDGING: judging}
    return Workload(flops, blocks, judgements, 2 * tokens, dict.fromkeys(labels, one))


def placed(labels: list[str]) -> dict[str, Place]:
    """Each in the bank that its name says, of five, at one of three sparsities."""
    return {
        label: Place(f"bank {index % 5}", f"bank {index % 5}, l0 {8 * (1 + index // 5 % 3)}")
        for index, label in enumerate(labels)
    }


def begun(console: Console, one: Workload, steps_done: int = 0, blocks_done: int = 0) -> Progress:
    made, labels = Progress("group", console), list(one.members)
    made.expect([one])
    made.begin(placed(labels), dict.fromkeys(labels, steps_done), blocks_done)
    return made


def test_a_plain_line_now_and_then(clock: Clock) -> None:
    console = plain()
    label = "gated-l1_0.0006-x16"
    with begun(console, work(2_000_000, [label], blocks=1)) as shown:
        shown.read(0, 1.0)
        shown.place(0, 0)
        for step in range(1, 41):
            clock.now += 1
            shown.update({label: step * 3_000}, {label: (23.14, 0.3111)})
    lines = said(console)
    assert len(lines) == 4  # at 0, 15 and 30 s, and the last
    assert lines[2] == (
        "4% 90k/2M tokens  ETA 10m37s  SAEs 3k tok/s  epoch 0  block 0  gated-l1_0.0006-x16 l0=23.1 fvu=0.311"
    )
    assert lines[-1].startswith("6% 120k/2M tokens")


def test_many_members_in_a_line(clock: Clock) -> None:
    labels = [f"m{index}" for index in range(5)]
    shown = begun(plain(), work(labels=labels))
    shown.read(0, 0.0)
    clock.now += 10
    shown.read(0, 1.0)  # a quarter of 10,000 operations, at 250 a second
    clock.now += 10
    shown.place(1, 7)
    shown.update(dict.fromkeys(labels, 500), {label: (float(index), index / 10) for index, label in enumerate(labels)})
    assert shown.line() == (  # three blocks in 30 s, and the other half of the steps in 10
        "50% 500/1k tokens  ETA 40s  model 50 tok/s  SAEs 50 tok/s  epoch 1  block 7  "
        "5 members (min/median/max)  l0=0.0/2.0/4.0  fvu=0.000/0.200/0.400"
    )


def test_each_kind_of_work_has_its_own_rate(clock: Clock) -> None:
    """A block of 2,500 operations takes 100 s, its 250 steps 50 s; judging, 500 operations, goes as the model does
    until it is seen to be slower."""
    shown = begun(plain(), work(judging=500, judgements=2))
    shown.read(0, 0.0)
    clock.now += 100
    shown.read(0, 1.0)
    clock.now += 50
    shown.update({"m": 250}, {})
    assert shown.eta == pytest.approx(3 * (100 + 50) + 500 / 25)
    clock.now += 40
    shown.judging(1.0, 1, last=False)  # 250 operations in 40 s
    assert shown.eta == pytest.approx(3 * (100 + 50) + 40)


def test_steps_that_go_dense_at_first(clock: Clock) -> None:
    """Two members of a hundred latents: one is at the L0 that it is to end at, the other fires so much that its steps
    cost ten times as much, which they will not later. An operation takes a second."""
    one = StepWork(steps=100, batch=1, width=100, fixed=1, full=9, l0=0)
    shown = begun(plain(), Workload({Kind.MODEL: 1, Kind.JUDGING: 0}, 1, 1, 1, {"sparse": one, "dense": one}), 0, 1)
    shown.update({}, {"sparse": (0.0, 0.1), "dense": (80.0, 0.1)})
    clock.now += 10 * (1 + 10)
    shown.update({"sparse": 10, "dense": 10}, {})
    assert shown.eta == pytest.approx(2 * 90)
    assert shown.rates[Kind.STEPS] == pytest.approx(10 / 110)
    shown.state("dense", "failed")
    assert shown.eta == pytest.approx(90)


def test_an_l0_on_its_way(clock: Clock) -> None:
    """Steps between two L0s cost what those in the middle do."""
    shown = Steps({"m": StepWork(steps=100, batch=1, width=100, fixed=1, full=8, l0=0)})
    assert shown.told({}, {"m": 25.0}) == 0
    assert shown.told({"m": 10}, {"m": 12.5}) == 10 * (9 + 5) / 2
    assert shown.told({"m": 20}, {"m": 0.0}) == 10 * (5 + 1) / 2
    assert shown.left == 80


def test_an_l0_that_nobody_asked_for_is_taken_to_stay(clock: Clock) -> None:
    one = StepWork(steps=100, batch=1, width=100, fixed=1, full=9, l0=None)
    shown = begun(plain(), Workload({Kind.MODEL: 1, Kind.JUDGING: 0}, 1, 1, 1, {"m": one}), 0, 1)
    shown.update({}, {"m": (12.5, 0.1)})  # half of what makes a step dense
    clock.now += 55
    shown.update({"m": 10}, {})
    assert shown.eta == pytest.approx(90 * 5.5)


def test_activations_from_a_cache_tell_nothing_of_judging(clock: Clock) -> None:
    """Blocks of 10,000 operations of the model are there in a second; judging takes as many, at the rate of steps."""
    shown = begun(plain(), work(judging=10_000))
    shown.update({}, {})
    clock.now += 1
    shown.given(3)
    clock.now += 100
    shown.update({"m": 1000}, {})
    assert shown.eta == pytest.approx(10_000 / 10)


def test_passes_to_come_count(clock: Clock) -> None:
    shown = begun(plain(), work())
    shown.expect([work(), work(2000)])
    shown.read(0, 0.0)
    clock.now += 100
    shown.read(0, 1.0)
    assert shown.eta == pytest.approx(300 + 400 * 2 + 1000 / 25 + 2000 / 25)  # steps are taken to go as the model does
    shown.end()
    assert shown.eta == pytest.approx(800 + 2000 / 25)


def test_what_is_done_once_is_no_rate(clock: Clock) -> None:
    console = plain()
    shown = begun(console, work())
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
    shown = begun(plain(), work())
    shown.read(0, 0.0)
    thread = Thread(target=shown.read, args=(0, 0.5))
    thread.start()
    thread.join()
    clock.now += 5
    shown.read(0, 1.0)
    assert shown.eta == pytest.approx((7500 + 1000) / 500)


def test_a_resumed_group_rates_its_own_work(clock: Clock) -> None:
    shown = begun(plain(), work(), 750, 3)
    shown.update({"m": 750}, {})
    clock.now += 10
    shown.update({"m": 1000}, {})
    assert shown.eta == pytest.approx(2500 / 25)  # a block is left to be read


def test_due_follows_the_display(clock: Clock) -> None:
    shown = begun(plain(), work())
    assert shown.due
    shown.update({"m": 1}, {})
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
        shown.expect([work(2000, labels, blocks=1)])
        shown.read(0, 1.0)
        shown.begin(placed(labels), {}, 0)
        shown.update({}, {})
        clock.now += 2
        shown.place(0, 3)
        shown.state("gated-1", "failed")
        shown.message("a line that stays")
        shown.update(dict.fromkeys(labels, 1000), dict.fromkeys(labels, (12.5, 0.25)))
    text = "\n".join(said(console))
    eta = "ETA 1s" if members == 2 else "ETA 2s"  # who failed is not waited for
    for expected in ("2 banks", "loading the model", "50%", "SAEs 500 tok/s", eta, "block 3", "12.5", "failed"):
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
    shown.expect([work(200_000_000, labels, blocks=4)])
    shown.read(0, 0.5)
    clock.now += 10
    shown.read(0, 1.0)
    shown.begin(placed(labels), {}, 0)
    shown.update(dict.fromkeys(labels, 100_000_000), dict.fromkeys(labels, (12.5, 0.25)))
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
    with begun(console, work(blocks=1, judging=1000)) as shown:
        shown.update({"m": 1000}, {})
        shown.judging(0.0, 8)  # the first and the last one are always shown
        shown.judging(0.1, 8)  # too soon
        clock.now += 20
        shown.judging(0.4, 8)
        shown.judging(1.0, 8)
    lines = [line for line in said(console) if "judging" in line]
    assert [line.partition("judging 8 members, ")[2] for line in lines] == ["0%", "40%", "100%"]


def test_what_a_status_is_made_of(clock: Clock) -> None:
    shown = begun(plain(), work(blocks=1))
    assert (shown.eta, shown.doing) == (None, "")
    shown.read(0, 1.0)
    clock.now += 10
    shown.place(1, 7)
    shown.update({"m": 500}, {})
    assert (shown.eta, shown.doing) == (10.0, "epoch 1  block 7")
    shown.judging(0.4, 2)
    assert shown.doing == "judging 2 members, 40%"


def test_the_end_is_known_from_a_tenth_of_the_way(clock: Clock) -> None:
    """What the display was told in a run on two cores, thinned: SmolLM2-135M, ten members of 4,096 latents, a million
    tokens, 20,000 held out. Six of ten have steps that go dense at first; judging took the last sixth."""
    recorded = json.loads((Path(__file__).parent / "smollm2.json").read_text())
    shown, began, truth = Progress("smollm2", plain()), clock.now, recorded[-1][0]
    guesses = []
    for seconds, what, told in recorded[:-1]:
        clock.now = began + seconds
        match what:
            case "expect":
                flops = {Kind(kind): number for kind, number in told[0]["flops"].items()}
                members = {label: StepWork(**one) for label, one in told[0]["members"].items()}
                shown.expect([Workload(**told[0] | {"flops": flops, "members": members})])
            case "begin":
                shown.begin(placed(list(told[0])), *told)
            case "judging":
                shown.judging(told[0], told[1], last=told[2])
            case _:
                getattr(shown, what)(*told)
        if shown.eta is not None and seconds > truth / 10:
            guesses.append(seconds + shown.eta)
    assert len(guesses) > 100
    assert all(0.75 * truth < guess < 1.25 * truth for guess in guesses)
