"""A process's metrics in the files that prometheus_client's MultiProcessCollector merges.

A file belongs to a slot, not to a pid: a worker that replaces a dead one continues its counters. So counters never go
down, the number of files does not grow, and a scrape costs the same after a hundred deaths.
"""

import os
from collections.abc import Iterable
from mmap import mmap
from pathlib import Path
from time import time
from typing import NamedTuple

from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from ops.telemetry.metrics import BOUNDS_SECONDS, Histogram, Metric, Number

# Bytes of a new file. They are written as zeros, so that a full tmpfs is an OSError here: a sparse page of a mapped
# file would kill the process with SIGBUS when it is first touched. A histogram's series takes 3 kB.
FILE_BYTES_BY_KIND = {"histogram": 512 * 1024}
FILE_BYTES = 64 * 1024
LE = [floatToGoString(bound) for bound in (*BOUNDS_SECONDS, float("inf"))]


class Cell(NamedTuple):
    """A number in a file."""

    file: MmapedDict
    key: str
    base: float  # the count of the slot's earlier processes

    def write(self, value: float) -> None:
        # the time is for gauges that show the most recent value
        self.file.write_value(self.key, self.base + value, time())


class Store:
    """The files of `slot`; call `write` from one thread only. It raises OSError if there is no room for them."""

    def __init__(self, directory: Path, slot: str) -> None:
        self._directory, self._slot = directory, slot
        self._files: dict[str, MmapedDict] = {}
        self._cells: dict[Number | Histogram, list[Cell]] = {}
        self._written: dict[Number | Histogram, list[float]] = {}

    def write(self, metrics: Iterable[Metric[Number] | Metric[Histogram]]) -> None:
        """Write the values that have changed."""
        for metric in metrics:
            for labels, series in metric.series.items():
                values = [series.value] if isinstance(series, Number) else [*series.counts, series.sum]
                before = self._written.get(series)
                if values == before:
                    continue
                cells = self._cells.get(series) or self._open(metric, labels, series)
                for at, cell in enumerate(cells):
                    if before is None or before[at] != values[at]:
                        cell.write(values[at])
                self._written[series] = values

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def _open(
        self, metric: Metric[Number] | Metric[Histogram], labels: tuple[str, ...], series: Number | Histogram
    ) -> list[Cell]:
        """Return the cells of a series in the file of its kind, which is made if there is none."""
        name, names = metric.name, list(metric.names)
        if isinstance(series, Number):
            keys = [mmap_key(metric.family, name, names, list(labels), metric.text)]
        else:
            keys = [mmap_key(name, f"{name}_bucket", [*names, "le"], [*labels, le], metric.text) for le in LE]
            keys.append(mmap_key(name, f"{name}_sum", names, list(labels), metric.text))
        file = self._files.get(metric.kind)
        if file is None:
            path = self._directory / f"{metric.kind}_{self._slot}.db"
            if not path.exists():
                try:
                    path.write_bytes(bytes(FILE_BYTES_BY_KIND.get(metric.kind, FILE_BYTES)))
                except OSError:
                    path.unlink(missing_ok=True)
                    raise
            file = self._files[metric.kind] = AllocatedDict(str(path))  # type: ignore[no-untyped-call]
        continued = not metric.kind.startswith("gauge")
        cells = [Cell(file, key, file.read_value(key)[0] if continued else 0.0) for key in keys]
        self._cells[series] = cells
        return cells


class AllocatedDict(MmapedDict):
    """MmapedDict, except that a file without room to grow raises OSError instead of a SIGBUS."""

    def _init_value(self, key: str) -> None:
        needed = len(key.encode()) + 32  # the key's length before it, padding and two numbers after it
        while self._used + needed > self._capacity and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._f.fileno(), 0, 2 * self._capacity)
            self._capacity *= 2
            self._m = mmap(self._f.fileno(), self._capacity)
        super()._init_value(key)  # type: ignore[no-untyped-call]
