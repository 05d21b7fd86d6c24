"""`sae-sweep` with a clock in it, for `scripts/bench/sweep.py`:

    python scripts/bench/clocked_command.py MARKS.json [what sae-sweep takes ...]

The command and its exit code are unchanged. MARKS.json gets the clock when training began, when each step of each
part of the members ended, how many parts there are, and when training ended; of the times only differences mean
anything.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def watch(marks: dict[str, Any]) -> None:
    """Make training note its times; it is loaded here, as the command would."""
    from sae_sweep.activations.stream import Block
    from sae_sweep.training.group import GroupRun
    from sae_sweep.training.trainer import BankTrainer

    train, consume = GroupRun._train, BankTrainer.consume
    parts: set[int] = set()

    def clocked_train(self: GroupRun, *arguments: Any) -> None:
        marks["begin"] = time.perf_counter()
        train(self, *arguments)
        marks["end"] = time.perf_counter()

    def clocked_consume(self: BankTrainer, block: Block, after_step: Callable[[], None]) -> None:
        def clocked() -> None:
            marks["steps"].append(time.perf_counter())
            after_step()

        parts.add(id(self))
        marks["parts"] = len(parts)
        consume(self, block, clocked)

    GroupRun._train, BankTrainer.consume = clocked_train, clocked_consume  # type: ignore[method-assign, assignment]


def main() -> int:
    from sae_sweep import cli

    # What cli.main sets before it imports torch; here torch is imported before that.
    os.environ.setdefault("GOMP_SPINCOUNT", cli.SPIN)
    marks: dict[str, Any] = {"steps": []}
    watch(marks)
    code = cli.main(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(marks), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
