"""Rows of several sources in given shares (`data.weights`): which source each row is of, and the rows."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sae_sweep.data.packing import Ids
from sae_sweep.data.rows import ROW_ORDER, RowReader, permutation

SOURCES = 6  # what is drawn, as rows.py has 1 and 2, and toy.py those up to 5
CHUNK = 1024
"""Rows whose sources are drawn together: of these, each source has its share but for one."""

Counts = npt.NDArray[np.int64]
"""[S]: rows by source."""


class Shares:
    """The source of each row of an endless sequence, which depends on the shares, data.seed and its number alone."""

    def __init__(self, shares: Sequence[float], seed: int) -> None:
        self._bounds = np.cumsum(shares)[:-1]
        self._seed = seed
        self._before: list[Counts] = [np.zeros(len(shares), dtype=np.int64)]  # of each chunk so far

    def sources(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Of rows start to stop."""
        first = start // CHUNK
        chunks = [self._chunk(chunk) for chunk in range(first, -(-stop // CHUNK))]
        drawn = np.concatenate([np.empty(0, dtype=np.int64), *chunks])
        return drawn[start - first * CHUNK : stop - first * CHUNK]

    def counts(self, rows: int) -> Counts:
        """How many of the first so many rows are of each source."""
        chunk = rows // CHUNK
        while len(self._before) <= chunk:
            self._before.append(self._before[-1] + self._counted(self._chunk(len(self._before) - 1)))
        return self._before[chunk] + self._counted(self.sources(chunk * CHUNK, rows))

    def read(self, rows: int, window_rows: int) -> Counts:
        """The same, where rows are permuted within windows of so many, as `rows.TokenStream` does."""
        window, rest = divmod(rows, window_rows)
        order = permutation(window_rows, ROW_ORDER, self._seed, 0, window)[:rest]
        last = self.sources(window * window_rows, (window + 1) * window_rows)[order]
        return self.counts(window * window_rows) + self._counted(last)

    def _chunk(self, number: int) -> npt.NDArray[np.int64]:
        """Evenly spaced points of a line of all shares, from a random first one on, in random order."""
        random = np.random.default_rng((SOURCES, self._seed, number))
        points = (np.arange(CHUNK) + random.random()) / CHUNK
        return random.permutation(np.searchsorted(self._bounds, points, side="right"))

    def _counted(self, sources: npt.NDArray[np.int64]) -> Counts:
        return np.bincount(sources, minlength=len(self._bounds) + 1)


class MixedReader:
    """Random access to rows of several sources, without end: a source that has ended begins again."""

    length: int | None = None

    def __init__(self, readers: Sequence[RowReader], shares: Shares, context: int) -> None:
        """Each reader must have a row."""
        self._readers, self._shares, self._context = readers, shares, context

    def read(self, start: int, stop: int) -> Ids:
        """Rows start to stop, [n, context]."""
        drawn_n, first = self._shares.sources(start, stop), self._shares.counts(start)
        rows = np.empty((stop - start, self._context), dtype=np.int32)
        for source, reader in enumerate(self._readers):
            mine_n = drawn_n == source
            rows[mine_n] = self._rows(reader, int(first[source]), int(mine_n.sum()))
        return rows

    def _rows(self, reader: RowReader, first: int, count: int) -> Ids:
        """The source's next rows after so many, over the ends of its epochs."""
        parts = [np.empty((0, self._context), dtype=np.int32)]
        while count > 0:
            at = first if reader.length is None else first % reader.length
            found = reader.read(at, at + count)
            parts.append(found)
            first, count = first + len(found), count - len(found)
        return np.concatenate(parts)


def asked_of(shares: Sequence[float], rows: int) -> list[int]:
    """So many rows, parted by shares into whole ones; one of each source at least."""
    ends = np.rint(np.cumsum(shares) * rows).astype(int)
    return [max(1, int(part)) for part in np.diff(ends, prepend=0)]


def interleaved(parts: Sequence[Ids]) -> Ids:
    """All rows of the parts, evenly spread: the first so many have about the shares of all."""
    places = np.concatenate([(np.arange(len(part)) + 0.5) / max(1, len(part)) for part in parts])
    return np.concatenate(parts)[np.argsort(places, kind="stable")]
