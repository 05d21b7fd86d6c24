"""A sweep's folder from Python: its members as a frame, its frontier as a figure, its SAEs by name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_sweep.config.reading import flat_entries
from sae_sweep.config.saved import architecture_label
from sae_sweep.config.values import shown
from sae_sweep.errors import ConfigError
from sae_sweep.evaluation.metrics import METRICS
from sae_sweep.folder import names
from sae_sweep.folder.record import read_record
from sae_sweep.host.json_files import read_object
from sae_sweep.reporting.cell import cell_title
from sae_sweep.reporting.pareto import cells
from sae_sweep.reporting.points import Point, read_sweep
from sae_sweep.reporting.sections.curves import read_curves

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from sae_sweep.api.sae import Sae

FOREIGN_FILES = f"{names.FOREIGN}/*/{names.ORIGIN}"
L0_NEAR = 0.25
"""`best(l0=...)` looks at members whose L0 is within this share, and 0.5, of it."""


class Sweep(Mapping[str, "Sae"]):
    """The finished members of a sweep by name, and SAEs that were judged into it as `foreign/NAME`; what is asked is
    read from its folder then, also while it trains.

    >>> sweep = ss.open("outputs/mine")
    >>> sweep
    <Sweep outputs/mine: 4 of 4 members finished>
    >>> float(sweep.frame().loc["topk-l0_8-w256", "l0"])
    8.0
    >>> sweep.best(l0=8, architecture="topk").cfg.architecture
    'topk'
    """

    def __init__(self, folder: Path) -> None:
        """Raises ConfigError where the folder is not a sweep's."""
        if not (folder / names.SWEEP).is_file():
            raise ConfigError(f"{folder} has no {names.SWEEP}; give the folder of a sweep, like outputs/demo")
        self.folder = folder

    def __getitem__(self, member: str) -> "Sae":
        if member not in list(self):
            raise KeyError(f"{member!r} is not one of the finished members {', '.join(self) or '(none yet)'}")
        from sae_sweep.api.loading import load  # brings in torch

        return load(self.folder / member)

    def __iter__(self) -> Iterator[str]:
        yield from (label for label, entry in self._members.items() if entry["state"] == "finished")
        yield from sorted(f"{names.FOREIGN}/{file.parent.name}" for file in self.folder.glob(FOREIGN_FILES))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        states = [entry["state"] for entry in self._members.values()]
        return f"<Sweep {self.folder}: {states.count('finished')} of {len(states)} members finished>"

    @property
    def _members(self) -> dict[str, Any]:
        found: dict[str, Any] = read_record(self.folder)["members"]
        return found

    def frame(self) -> "pd.DataFrame":
        """A row per member, by name: its state, what it is, every metric (while it trains only tokens_trained), and its
        config by dotted key; and a row per SAE that was judged into the sweep, in state foreign."""
        import pandas as pd

        points = {point["member"]: _told(point) for point in read_sweep(self.folder).points}
        rows = {}
        for label, entry in self._members.items():
            known = points.pop(label, None) or self._trains(label, entry["config"])
            rows[label] = {"state": entry["state"], **known, **self._resolved(label, entry["config"])}
        rows |= {label: {"state": "foreign", **known} for label, known in points.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("member")

    def _resolved(self, label: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """A member's config by dotted key, with what its plan decided where it says null, once that is known."""
        asked = flat_entries(config)
        try:
            found = flat_entries(read_object(self.folder / label / names.PROVENANCE)["config"])
        except (OSError, ValueError, KeyError, AttributeError):  # unfinished, or of a version without it
            found = {}
        return {key: found.get(key) if value is None else value for key, value in asked.items()}

    def _trains(self, label: str, config: Mapping[str, Any]) -> dict[str, Any]:
        """What is known of an unfinished member: how far it is in training."""
        tokens = read_curves(self.folder / label / names.CURVES)["tokens"]
        return {"architecture": architecture_label(config), "tokens_trained": tokens[-1] if tokens else None}

    def frontier(self) -> "pd.DataFrame":
        """The rows of the frame that no other member of their cell beats on both L0 and fidelity, by rising L0."""
        labels = [label for cell in cells(read_sweep(self.folder).points) for label in cell["frontiers"]["overall"]]
        frame = self.frame()  # SAEs that were trained elsewhere are no members
        return frame.loc[[label for label in labels if label in frame.index]]

    def plot(self, x: str = "l0", y: str = "ce_recovered", hue: str = "architecture") -> "go.Figure":
        """A plotly figure of two columns of the frame, a colour and a line by x for each value of a third.

        Raises ConfigError for a column that the frame has not.
        """
        import plotly.graph_objects as go

        frame = self.frame()
        for column in (x, y, hue):
            _check_column(column, frame)
        figure = go.Figure(layout={"xaxis_title": _axis(x), "yaxis_title": _axis(y), "legend_title": hue})
        for value, some in frame.dropna(subset=[x, y]).groupby(hue, sort=True):
            ordered = some.sort_values(x)
            error = METRICS[y].error if y in METRICS else None
            bars = {"array": ordered[error]} if error is not None and error in ordered else None
            figure.add_scatter(
                x=ordered[x], y=ordered[y], error_y=bars, text=ordered.index, name=str(value), mode="lines+markers"
            )
        return figure

    def best(self, l0: float | None = None, **columns: Any) -> "Sae":
        """The finished member of highest fidelity (CE recovered; of toy data explained variance) among those with such
        values in the frame's columns (architecture="topk", **{"training.lr": 1e-3}) and an L0 near `l0`.

        Raises ConfigError where there is none, and where there are some of several cells, which cannot be compared.
        """
        frame = self.frame()
        frame = frame[frame["state"].isin(("finished", "foreign"))]
        if frame.empty:
            raise ConfigError(f"{self.folder} has no finished member yet")
        for column, value in columns.items():
            _check_column(column, frame)
            left = frame[frame[column] == value]
            if left.empty:
                known = ", ".join(sorted({shown(each) for each in frame[column]}))
                raise ConfigError(f"best: no finished member has {column}={shown(value)}; there are {known}")
            frame = left
        if l0 is not None:
            near = frame[(frame["l0"] - l0).abs() <= max(0.5, L0_NEAR * l0)]
            if near.empty:
                known = ", ".join(f"{value:.3g}" for value in sorted(frame["l0"]))
                raise ConfigError(f"best: no finished member has an L0 near {l0:g}; there are {known}")
            frame = near
        if frame["cell"].nunique() > 1:
            raise ConfigError(f"best: say which of {', '.join(frame['cell'].unique())} (cell=); they do not compare")
        fidelity = "ce_recovered" if frame["ce_recovered"].notna().any() else "explained_variance"
        return self[frame[fidelity].astype(float).idxmax()]


def open_sweep(folder: str | Path) -> Sweep:
    """The sweep of a folder, also while it trains. Raises ConfigError where the folder is not a sweep's."""
    return Sweep(Path(folder).expanduser())


def _told(point: Point) -> dict[str, Any]:
    """What a frame says of a point: its cell in a line."""
    return {"cell": cell_title(point["cell"])} | {k: v for k, v in point.items() if k not in ("member", "cell")}


def _check_column(column: str, frame: "pd.DataFrame") -> None:
    if column not in frame:
        raise ConfigError(f"{column}: the frame has no such column; it has {', '.join(map(str, frame.columns))}")


def _axis(column: str) -> str:
    return METRICS[column].axis if column in METRICS else column
