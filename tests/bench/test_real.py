"""How a command's time is divided into parts, and what each takes at least."""

from pathlib import Path

from scripts.bench import asked, real
from scripts.bench.sides import Run


def test_the_first_block_is_read_before_training() -> None:
    """Four blocks in 20 s, one of them before the 40 s of training, and judging 20 s, of 100 s."""
    marks = {"begin": 10.0, "end": 50.0, "judged": 70.0, "reading": 20.0, "steps": [1.0, 2.0, 3.0, 4.0]}
    assert real.parts(Run(100.0, marks, Path())) == {"reading": 20, "SAEs": 25, "judging": 20, "rest": 35}


def test_floors_follow_from_operations() -> None:
    """Two TopK members of d 128 and 256 latents: an encoder product for each token."""
    wanted = real.parsed(["--model", "demo", "--quick", "--no-peers"])
    sweep = asked.sweep_of(wanted, "topk", 0)
    members = len(sweep.members["ours"].values)
    least = real.floors(sweep, 1e9)
    assert least["SAEs"] == sweep.steps * sweep.batch * members * 2 * 128 * 256 / 1e9
    assert least["reading"] > 0
    assert least["judging"] > 0
