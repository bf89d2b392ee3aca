"""Studies: the results of many runs in three files, described in results/README.md.

Numbers keep every digit, so that nothing measured is lost.
"""

import contextlib
import csv
import fcntl
import gzip
import io
import json
import pathlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from distill_jax.errors import UserError
from distill_jax.fields import flatten
from distill_jax.files import naming_unwritable, read_json

Curve = list[dict[str, Any]]  # the lines of a metrics.jsonl
TYPES = {"seed": int, "overrides": dict}  # of the cells of these columns, if not empty
KEYS = ("variant", "stage", "seed")
PROVENANCE = ("commit", "versions", "device", "inferred")


class Run(NamedTuple):
    """A row of runs.csv: one run or, if it has no metrics of its own, a family or a set of seeds that runs belong to."""

    variant: str  # the workdir's path below the folder that was collected
    stage: str  # "" for a plain run and for a family
    seed: int | None  # the run's seed, by which runs are paired; a stage's own may differ. None for a set of seeds
    config: dict[str, Any]  # flat: {"data.name": ...}
    results: dict[str, Any]  # flat: {"test_accuracy": ..., "linear_probe.test_accuracy": ...}

    @property
    def path(self) -> str:
        """Its name in tables: VARIANT or VARIANT/STAGE."""
        return f"{self.variant}/{self.stage}" if self.stage else self.variant


@contextlib.contextmanager
def in_turn(study: pathlib.Path) -> Iterator[None]:
    """For what reads a study and writes it again: makes its folder, and lets one process at a time in; the others wait.

    Raises:
      UserError: the folder cannot be written.
    """
    with contextlib.ExitStack() as stack:
        with naming_unwritable(str(study)):
            study.mkdir(parents=True, exist_ok=True)
            fcntl.flock(stack.enter_context((study / "lock").open("w")), fcntl.LOCK_EX)
        yield


def write_study(study: pathlib.Path, runs: Sequence[Run], curves: dict[tuple, Curve]) -> None:
    """Writes runs.csv, config.json and curves.csv.gz, each completely or not at all; numbers keep every digit. See `in_turn`.

    Raises:
      UserError: they cannot be written.
    """
    shared, rows = shared_config(runs), []
    for run in runs:
        overrides = {name: value for name, value in run.config.items() if name not in shared}
        rows.append(key_columns(run[:3]) | {"overrides": overrides} | run.results)
    lines = [key_columns(key) | line for key, curve in curves.items() for line in curve]
    contents = {
        # first, since added runs move fields from config.json to their overrides, where both may have them
        "runs.csv": to_csv(rows, (*KEYS, "overrides", *PROVENANCE)).encode(),
        "config.json": (json.dumps(nest(shared), indent=2) + "\n").encode(),
        "curves.csv.gz": gzip.compress(to_csv(lines, KEYS).encode(), mtime=0),  # the same bytes for the same content
    }
    with naming_unwritable(str(study)):
        study.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (study / f"{name}.tmp").write_bytes(content)
        for name in contents:
            (study / f"{name}.tmp").replace(study / name)


def shared_config(runs: Sequence[Run]) -> dict[str, Any]:
    """The fields, flat, that have the same value in all runs."""
    first = runs[0].config
    return {name: value for name, value in first.items() if all(name in run.config and run.config[name] == value for run in runs)}


def read_runs(study: pathlib.Path) -> list[Run]:
    """Reads runs.csv.

    Raises:
      UserError: a file is missing or damaged.
    """
    shared = flatten(read_json(study / "config.json"))
    path = study / "runs.csv"
    runs = []
    for row in from_csv(path, (*KEYS, "overrides")):
        runs.append(Run(*pop_key(row), shared | row.pop("overrides", {}), row))
    return runs


def read_curves(study: pathlib.Path) -> dict[tuple, Curve]:
    """Reads curves.csv.gz: the lines of each run's metrics.jsonl, by its variant, stage and seed.

    Raises:
      UserError: the file is missing or damaged.
    """
    curves: dict[tuple, Curve] = {}
    for row in from_csv(study / "curves.csv.gz", KEYS):
        curves.setdefault(pop_key(row), []).append(row)
    return curves


def key_columns(key: tuple) -> dict[str, Any]:
    return {name: value for name, value in zip(KEYS, key, strict=True) if value not in ("", None)}


def pop_key(row: dict[str, Any]) -> tuple[str, str, int | None]:
    """The inverse of `key_columns`; removes the key from the row."""
    return str(row.pop("variant", "")), str(row.pop("stage", "")), row.pop("seed", None)


def to_csv(rows: Sequence[dict[str, Any]], first: Sequence[str]) -> str:
    """A table of everything in the rows, starting with the columns `first`; a cell is empty if its row has no value."""
    columns = list(dict.fromkeys([*first, *(name for row in rows for name in row)]))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([to_cell(row[name]) if name in row else "" for name in columns] for row in rows)
    return file.getvalue()


def from_csv(path: pathlib.Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file written by `to_csv`, gzipped or not."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}; restore the file") from error
    except (EOFError, ValueError, csv.Error, zlib.error) as error:
        raise UserError(f"{path}: damaged ({error}); restore the file") from error
    columns = lines[0] if lines else []
    if not set(needed) <= set(columns):
        raise UserError(f"{path}: missing column {', '.join(sorted(set(needed) - set(columns)))}; restore the file")
    for count, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(columns):
            raise UserError(f"{path}: row {count} has {len(cells)} cells instead of {len(columns)}; restore the file")
        row = {name: from_cell(cell) for name, cell in zip(columns, cells, strict=True) if cell}
        for name, kind in TYPES.items():
            if name in row and not isinstance(row[name], kind):
                raise UserError(f"{path}: row {count}: {name} is {row[name]!r}; restore the file")
        yield row


def to_cell(value: Any) -> str:
    """Text as is, unless it would be read back as something else; everything else as JSON."""
    if isinstance(value, str) and from_cell(value) == value and value:
        return value
    return json.dumps(value)


def from_cell(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for path, value in flat.items():
        *outer, name = path.split(".")
        inner = nested
        for part in outer:
            inner = inner.setdefault(part, {})
        inner[name] = value
    return nested
