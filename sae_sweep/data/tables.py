"""Records of Parquet and Arrow files, some hundreds at a time. pyarrow is imported where one is read."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from sae_sweep.data.fields import Record, Wanted
from sae_sweep.errors import ConfigError, one_line

_BATCH_ROWS = 256


def parquet_records(stream: BinaryIO, where: str, wanted: Wanted) -> Iterator[Record]:
    """The documents of a Parquet file, of which the wanted columns alone are read. Raises ConfigError."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(stream)
        columns = _columns(file.schema_arrow.names, where, wanted)
        yield from _documents(file.iter_batches(batch_size=_BATCH_ROWS, columns=columns), where, wanted)
    except pa.ArrowException as error:
        raise ConfigError(f"{where} cannot be read as Parquet ({one_line(error)})") from error


def arrow_records(stream: BinaryIO, where: str, wanted: Wanted) -> Iterator[Record]:
    """The documents of an Arrow file, or of an Arrow stream, as the `datasets` library saves. Raises ConfigError."""
    import pyarrow as pa

    try:
        if stream.read(6) == b"ARROW1":
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        else:
            stream.seek(0)
            file = batches = pa.ipc.open_stream(stream)
        columns = _columns(file.schema.names, where, wanted)
        yield from _documents((batch.select(columns) for batch in batches), where, wanted)
    except pa.ArrowException as error:
        raise ConfigError(f"{where} cannot be read as Arrow ({one_line(error)})") from error


def _columns(names: list[str], where: str, wanted: Wanted) -> list[str]:
    found = [name for name in wanted.columns if name in names]
    if not found or (not wanted.chat and wanted.field.partition(".")[0] not in found):
        has = ", ".join(names) or "none"
        raise ConfigError(f"{where} has no column data.field={wanted.field}; it has {has}")
    return found


def _documents(batches: Any, where: str, wanted: Wanted) -> Iterator[Record]:
    number = 0
    for batch in batches:
        for record in batch.to_pylist():
            number += 1
            yield wanted.document(record, f"{where} record {number}")
