"""`sae-sweep` with a clock in it, for `scripts/bench/sweep.py`:

    python scripts/bench/clocked_command.py MARKS.json [what sae-sweep takes ...]

The command and its exit code are unchanged. MARKS.json gets the clock when training began, when all members had taken
their steps on each block, and when training and judging ended; only differences mean anything. `reading` are seconds
in which the model read blocks, the first one among them, which is read before training begins.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def watch(marks: dict[str, Any]) -> None:
    """Make training note its times; it is loaded here, as the command would."""
    from sae_sweep.training.devices.waves import Waves
    from sae_sweep.training.run.judging import Judging
    from sae_sweep.training.run.loop import GroupRun
    from sae_sweep.training.run.sources import LanguageModelSource

    train, consume, finish = GroupRun._train, Waves.consume, Judging.finish
    read = LanguageModelSource.block

    def clocked_read(self: LanguageModelSource, index: int) -> Any:
        begun = time.perf_counter()
        block = read(self, index)
        marks["reading"] += time.perf_counter() - begun
        return block

    def clocked_train(self: GroupRun, *arguments: Any) -> None:
        marks["begin"] = time.perf_counter()
        train(self, *arguments)
        marks["end"] = time.perf_counter()

    def clocked_consume(self: Waves, *arguments: Any) -> None:
        consume(self, *arguments)
        marks["steps"].append(time.perf_counter())

    def clocked_finish(self: Judging, *arguments: Any) -> Any:
        results = finish(self, *arguments)
        marks["judged"] = time.perf_counter()
        return results

    GroupRun._train, Waves.consume = clocked_train, clocked_consume  # type: ignore[method-assign, assignment]
    LanguageModelSource.block = clocked_read  # type: ignore[method-assign]
    Judging.finish = clocked_finish  # type: ignore[method-assign, assignment]


def main() -> int:
    from sae_sweep import cli
    from sae_sweep.host import allocator as process

    process.tune()  # as cli.main does, but here torch is imported before that
    marks: dict[str, Any] = {"steps": [], "reading": 0.0}
    watch(marks)
    code = cli.main(sys.argv[2:])
    Path(sys.argv[1]).write_text(json.dumps(marks), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
