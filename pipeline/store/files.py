"""Write-once files: temporary name, fsync, rename, fsync of the folder. Knows nothing of what the files mean.

After borg's SaveFile and restic's design: a file that has its name is complete, and nothing is ever changed in place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import errors, schema

_PLAIN: dict[str, Any] = {  # for vectors, which no query filters by: their statistics take a fifth of the time to write
    "compression": "none",
    "use_dictionary": False,
    "write_statistics": ["embed_key"],
    "write_batch_size": 1 << 16,  # numbers that go through the encoder at once; 1024, one vector, costs a tenth
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors about `path` into ours: the disk's failure ends a run, a document's does not."""
    try:
        yield
    except pa.ArrowInvalid as error:  # Parquet's own word for a damaged file
        raise errors.CorruptStore(f"{path} is damaged: {error}", errors.MEND) from error
    except OSError as error:
        if error.errno in _NO_SPACE or "No space left" in str(error):
            remedy = (
                f"Free some space where {path.parent} lies and run the same command again: nothing finished is lost."
            )
            raise errors.DiskFull(f"no space left to write {path}", remedy) from error
        if isinstance(error, FileNotFoundError):
            raise errors.CorruptStore(f"{path} is missing", errors.MEND) from error
        if error.errno is None:  # Parquet's word for a damaged page
            raise errors.CorruptStore(f"{path} is damaged: {error}", errors.MEND) from error
        raise errors.StoreError(f"{path}: {error.strerror or error}", "Check its permissions and the disk.") from error


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_once(temporary: Path, target: Path, write: Callable[[BinaryIO], object]) -> None:
    """Create `target` with what `write` puts into it, whole or not at all.

    Args:
        temporary: a folder on the same file system; what a crash leaves there is swept by the next writer.

    Raises:
        DiskFull, StoreError: the system refused; `target` does not exist then.
    """
    draft = temporary / f"{target.name}.{secrets.token_hex(4)}"
    with disk_errors(target):
        temporary.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with draft.open("xb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        fsync_folder(target.parent)


def write_parquet(
    temporary: Path,
    target: Path,
    table: pa.Table,
    *,
    metadata: Mapping[str, str] | None = None,
    row_group: int = 4096,
    plain: bool = False,
) -> None:
    """Write `table` once as Parquet with page checksums.

    Args:
        metadata: added to the schema's; keys and values are text.
        row_group: rows per group.
        plain: neither compressed nor dictionary-encoded (for vectors zstd saves 8 % and takes most of the time).
    """
    if metadata:
        table = table.replace_schema_metadata(dict(metadata))

    def write(file: BinaryIO) -> None:
        pq.write_table(
            table,
            file,
            row_group_size=row_group,
            write_page_checksum=True,
            **(_PLAIN if plain else {"compression": "zstd"}),
        )

    write_once(temporary, target, write)


def write_batches(
    temporary: Path,
    target: Path,
    batches: Iterable[pa.RecordBatch],
    expected: pa.Schema,
    *,
    metadata: Mapping[str, str],
    row_group: int,
) -> None:
    """Write what comes, a few row groups in memory, plain as `write_parquet`; every group but the last is full."""

    def write(file: BinaryIO) -> None:
        held: list[pa.RecordBatch] = []
        rows = 0
        with pq.ParquetWriter(
            file,
            expected.with_metadata(dict(metadata)),
            write_page_checksum=True,
            **_PLAIN,
        ) as writer:
            for batch in batches:
                held.append(batch)
                rows += batch.num_rows
                if rows >= row_group:
                    table = pa.Table.from_batches(held, expected)
                    full = rows - rows % row_group
                    writer.write_table(table.slice(0, full), row_group_size=row_group)
                    held, rows = table.slice(full).to_batches(), rows - full
            writer.write_table(pa.Table.from_batches(held, expected), row_group_size=row_group)

    write_once(temporary, target, write)


def read_batches(path: Path, expected: pa.Schema, rows: int) -> Iterator[pa.RecordBatch]:
    """The batches of a file, of at most `rows` rows, checked as `read_parquet` checks; only these are in memory."""
    with disk_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        for batch in file.iter_batches(rows):
            table = pa.Table.from_batches([batch]).replace_schema_metadata(None)
            yield from schema.check(table, expected, str(path)).to_batches()


def read_parquet(
    path: Path, expected: pa.Schema, columns: Sequence[str] | None = None, *, added: Sequence[str] = ()
) -> pa.Table:
    """Read `columns` (all of `expected` when None), checksums verified.

    `added`: columns that files of earlier versions lack: they are null there.

    Raises:
        CorruptStore: missing, damaged or of another schema.
    """
    wanted = expected if columns is None else pa.schema([expected.field(name) for name in columns])
    # Not by pq.read_table: it imports pyarrow.dataset, and with it twice the time that a small file takes.
    with disk_errors(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read(columns=wanted.names)  # those that there are, in the file's order
    for name in added:
        if name not in table.column_names:
            table = table.append_column(wanted.field(name), pa.nulls(table.num_rows, wanted.field(name).type))
    if sorted(table.column_names) == sorted(wanted.names):
        table = table.select(wanted.names)
    return schema.check(table.replace_schema_metadata(None), wanted, str(path))


def parquet_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a Parquet file."""
    with disk_errors(path):
        raw = pq.read_schema(path).metadata or {}
    return {key.decode(): value.decode() for key, value in raw.items()}


def parquet_rows(path: Path) -> int:
    """How many rows a Parquet file has, by its footer."""
    with disk_errors(path):
        return int(pq.read_metadata(path).num_rows)


def sweep(folder: Path) -> int:
    """Remove everything in `folder` (left by a killed writer); returns how many entries there were."""
    count = 0
    for root, folders, names in os.walk(folder, topdown=False):
        for name in names:
            Path(root, name).unlink(missing_ok=True)
            count += 1
        for name in folders:
            Path(root, name).rmdir()
    return count
