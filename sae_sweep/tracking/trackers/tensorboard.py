"""TensorBoard: event files, a folder for each run. Tokens are the axis, as everywhere; times are those of the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sae_sweep.config.reading import flat_entries
from sae_sweep.config.schema import TrackingConfig
from sae_sweep.tracking.runs import SWEEP, FrontierTable, Histogram, TrackedRun

NEEDS = "tensorboard"
"""The package, and the extra of ours that brings it."""
FOLDER = "tensorboard"
"""Of the sweep's."""


def open_runs(sweep_folder: Path, sweep_name: str, config: TrackingConfig) -> "EventFiles | None":
    """The event files of one process; None where `tracking.mode` is another."""
    return EventFiles(sweep_folder / FOLDER) if config.mode == NEEDS else None


class EventFiles:
    """The runs of one process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._places: dict[str, float] = {}
        """How far each run is: tokens of a member, steps of the sweep."""

    def begin(self, run: TrackedRun, step: float) -> int:
        """Open a run. Every line of it is told again: what files of earlier commands have is superseded, as TensorBoard
        does with events that a restart repeats."""
        from torch.utils.tensorboard import SummaryWriter

        folder = self._folder / ("sweep" if run.label == SWEEP else run.label)
        again = run.label != SWEEP and folder.exists()
        writer = SummaryWriter(str(folder), purge_step=0 if again else None)
        writer.add_text("config", _table(["key", "value"], sorted(flat_entries(run.config).items())), 0)
        writer.add_text("notes", run.notes, 0)
        self._writers[run.label] = writer
        return -1

    def log(self, label: str, step: int, moment: float, values: Mapping[str, float]) -> None:
        """One step, at its tokens."""
        if (writer := self._writers.get(label)) is None:
            return
        place = self._places[label] = step if label == SWEEP else values.get("tokens", step)
        for key, value in values.items():
            if key != "tokens":
                writer.add_scalar(key, value, int(place), moment)
        writer.flush()

    def finish(
        self, label: str, summary: Mapping[str, Any], histograms: Mapping[str, Histogram], files: Sequence[Path]
    ) -> None:
        """Close a run; it keeps no files."""
        if (writer := self._writers.pop(label, None)) is None:
            return
        place = int(self._places.get(label, 0))
        for name, found in histograms.items():
            middles = [(low + high) / 2 for low, high in zip(found.edges, found.edges[1:], strict=False)]
            pairs = list(zip(found.counts, middles, strict=True))
            writer.add_histogram_raw(
                name,
                min=found.edges[0],
                max=found.edges[-1],
                num=sum(found.counts),
                sum=sum(count * middle for count, middle in pairs),
                sum_squares=sum(count * middle**2 for count, middle in pairs),
                bucket_limits=list(found.edges[1:]),
                bucket_counts=list(found.counts),
                global_step=place,
            )
        writer.add_text("summary", _table(["metric", "value"], list(summary.items())), place)
        writer.close()

    def fail(self, label: str, reason: str) -> None:
        """Close a run that will not be finished, and say why."""
        if (writer := self._writers.pop(label, None)) is not None:
            writer.add_text("failed", reason, int(self._places.get(label, 0)))
            writer.close()

    def frontier(self, tables: Sequence[FrontierTable]) -> None:
        """A text for each cell."""
        if (writer := self._writers.get(SWEEP)) is not None:
            for table in tables:
                place = int(self._places.get(SWEEP, 0))
                writer.add_text(f"frontier: {table.title}", _table(table.columns, table.rows), place)

    def close(self) -> None:
        """Close what is still open."""
        while self._writers:
            self._writers.popitem()[1].close()


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """In Markdown, which TensorBoard draws."""
    lines = [
        head,
        ["---"] * len(head),
        *([f"{cell:.5g}" if isinstance(cell, float) else cell for cell in row] for row in rows),
    ]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
