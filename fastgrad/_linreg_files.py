"""Files of the linear-regression command: tables from CSV, NPZ and NPY, and outputs that are whole or not there.

`open_table` looks at a file's first bytes, not at its name, and returns a `Table`: the columns' names, and
`rows(features, target)` that reads them. Rows of a CSV are called by their line in the file, rows and unnamed columns
of arrays by their index. Every failure is an `InputError` whose text is one line that starts with the file.
"""

from __future__ import annotations

import csv
import os
import shutil
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from typing import Any, BinaryIO, TextIO

import numpy as np

from ._linreg_data import Rows

Path = str | PathLike[str]


class InputError(Exception):
    """What the command prints, in one line, before it exits with status 2."""


def reason(error: BaseException) -> str:
    """An exception's message in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


@dataclass
class Table:
    """A file's columns by name. `default_target` is the target where none was asked for."""

    path: str
    names: list[str]
    default_target: str | None = None

    def find(self, name: str) -> int:
        if name not in self.names:
            shown = ", ".join(self.names[:20]) + (", …" if len(self.names) > 20 else "")
            raise InputError(f"{self.path}: no column named {name!r}; the columns are {shown}")
        return self.names.index(name)

    def rows(self, features: Sequence[str] | None, target: str | None) -> Rows:
        """The features (by default all columns but the target) and the target, for training."""
        target = self.default_target if target is None else target
        if target is None:
            raise InputError(f"{self.path}: which column is the target? --target is one of {', '.join(self.names)}")
        target = self.names[self.find(target)]
        if features is None:
            features = [name for name in self.names if name != target]
        features = [self.names[self.find(name)] for name in features]
        if not features:
            raise InputError(f"{self.path}: no column is left for the features")
        for i, name in enumerate(features):
            if name == target:
                raise InputError(f"{self.path}: column {name!r} is the target and can't be a feature too")
            if name in features[:i]:
                raise InputError(f"{self.path}: feature {name!r} is given twice")
        return self.filled(self.read([self.names.index(name) for name in features], self.names.index(target)))

    def inputs(self, features: Sequence[str]) -> Rows:
        """The features alone, for prediction."""
        return self.filled(self.read([self.find(name) for name in features], None))

    def filled(self, rows: Rows) -> Rows:
        if len(rows) == 0:
            raise InputError(f"{self.path}: no rows")
        return rows

    def read(self, features: list[int], target: int | None) -> Rows:
        raise NotImplementedError


def open_table(path: Path) -> Table:
    """The table in a file; raises InputError if it can't be read."""
    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            start = file.read(6)
        if start == b"\x93NUMPY":
            return MatrixTable(path)
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return ArraysTable(path)
        return CsvTable(path)
    except UnicodeEncodeError:
        raise InputError(f"{path}: neither CSV in UTF-8, nor NPZ, nor NPY") from None
    except (OSError, ValueError, EOFError, csv.Error, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: {reason(error)}") from None


class CsvTable(Table):
    """Comma, semicolon or tab separated UTF-8 with a header row; only columns that are asked for must be numbers."""

    def __init__(self, path: str):
        with self.text(path) as file:
            line = file.readline()
            line.encode()
            if not line.strip():
                raise InputError(f"{path}: no header row")
            self.delimiter = max(",;\t", key=line.count)
            file.seek(0)
            reader = csv.reader(file, delimiter=self.delimiter)
            header = [name.strip() for name in next(reader)]
            self.header_lines = reader.line_num
        for i, name in enumerate(header):
            if name and name in header[:i]:
                raise InputError(f"{path}: row 1, column {i + 1}: the name {name!r} is taken by another column")
        super().__init__(path, [name or f"column {i}" for i, name in enumerate(header, 1)])

    @staticmethod
    def text(path: str) -> TextIO:
        """The opened file; bytes that aren't UTF-8 become lone surrogates, which no number contains."""
        return open(path, newline="", encoding="utf-8-sig", errors="surrogateescape")

    def read(self, features: list[int], target: int | None) -> Rows:
        columns = features if target is None else [*features, target]
        try:
            data = self.read_fast(columns)
            if not np.isfinite(data).all():
                raise ValueError
        except ValueError:
            data = self.read_slowly(columns)
        names = [self.names[i] for i in features]
        if target is None:
            return Rows(data, None, names)
        return Rows(data[:, :-1], data[:, -1], names, target=self.names[target])

    def read_fast(self, columns: list[int]) -> np.ndarray:
        """All rows by NumPy's parser, which checks the number of cells but doesn't tell which one is bad."""
        fields = [(f"f{i}", "f8" if i in columns else "U1") for i in range(len(self.names))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = np.loadtxt(
                self.path,
                dtype=fields,
                delimiter=self.delimiter,
                skiprows=self.header_lines,
                comments=None,
                quotechar='"',
                encoding="utf-8-sig",
                ndmin=1,
            )
        return np.stack([table[f"f{i}"] for i in columns], axis=1)

    def read_slowly(self, columns: list[int]) -> np.ndarray:
        """All rows, cell by cell; raises InputError at the first cell that isn't a finite number."""
        values: list[list[float]] = []
        with self.text(self.path) as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            line = reader.line_num + 1
            try:
                for cells in reader:
                    if cells:
                        if len(cells) > len(self.names):
                            extra = f"column {len(self.names) + 1}: the header has only {len(self.names)}"
                            raise InputError(f"{self.path}: row {line}, {extra}")
                        values.append([self.number(cells, i, line) for i in columns])
                    line = reader.line_num + 1
            except csv.Error as error:
                raise InputError(f"{self.path}: row {line}: {error}") from None
        return np.array(values).reshape(-1, len(columns))

    def number(self, cells: list[str], column: int, line: int) -> float:
        cell = cells[column].strip() if column < len(cells) else ""
        try:
            if "_" in cell:
                raise ValueError
            value = float(cell)
        except ValueError:
            problem = f"{cell!r} is not a number" if cell else "empty cell" if column < len(cells) else "missing cell"
        else:
            if np.isfinite(value):
                return value
            problem = f"{cell} is not a finite number"
        raise InputError(f"{self.path}: row {line}, column {self.names[column]}: {problem}")


class MatrixTable(Table):
    """An NPY file with a matrix, mapped and never read whole; columns are called 0, 1, ..., the last is the target."""

    def __init__(self, path: str):
        self.matrix = np.load(path, mmap_mode="r", allow_pickle=False)
        if self.matrix.ndim != 2 or self.matrix.dtype.kind not in "fiub":
            raise InputError(f"{path}: {describe(self.matrix)}, not a matrix of numbers")
        count = self.matrix.shape[1]
        super().__init__(path, [str(i) for i in range(count)], str(count - 1))

    def find(self, name: str) -> int:
        count = len(self.names)
        if name.startswith("-") and name[1:].isdigit() and 1 <= int(name[1:]) <= count:
            return count - int(name[1:])
        if name not in self.names:
            raise InputError(f"{self.path}: no column {name!r}; the columns are 0 to {count - 1}")
        return int(name)

    def read(self, features: list[int], target: int | None) -> Rows:
        consecutive = features == list(range(features[0], features[-1] + 1))
        columns: Any = slice(features[0], features[-1] + 1) if consecutive else features
        y = None if target is None else self.matrix[:, target]
        return Rows(self.matrix, y, [self.names[i] for i in features], columns, target=str(target))


class ArraysTable(Table):
    """An NPZ file: `X` (rows, features), `y` (rows,) and perhaps `feature_names`; or one array (rows,) a column."""

    def __init__(self, path: str):
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise InputError(f"{path}: a zip archive, but not NPZ")
        self.columns: dict[str, np.ndarray] = {}
        matrix, names = arrays.pop("X", None), arrays.pop("feature_names", None)
        if matrix is not None:
            if matrix.ndim != 2:
                raise InputError(f"{path}: X is {describe(matrix)}, not a matrix of numbers")
            if names is not None and len(names) != matrix.shape[1]:
                raise InputError(f"{path}: {len(names)} feature_names for an X with {matrix.shape[1]} columns")
            labels = range(matrix.shape[1]) if names is None else names.tolist()
            self.columns = {str(name): column for name, column in zip(labels, matrix.T, strict=True)}
            arrays = {
                name: array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
                for name, array in arrays.items()
            }
        self.columns |= arrays
        if not self.columns:
            raise InputError(f"{path}: no arrays")
        count = len(next(iter(self.columns.values()))) if matrix is None else len(matrix)
        for name, array in self.columns.items():
            if array.shape != (count,) or array.dtype.kind not in "fiub":
                raise InputError(f"{path}: column {name} is {describe(array)}, not {count} numbers")
        super().__init__(path, list(self.columns), "y" if matrix is not None and "y" in self.columns else None)

    def read(self, features: list[int], target: int | None) -> Rows:
        names = [self.names[i] for i in features]
        x = np.stack([self.columns[name] for name in names], axis=1)
        if target is None:
            return Rows(x, None, names)
        return Rows(x, self.columns[self.names[target]], names, target=self.names[target])


def describe(array: np.ndarray) -> str:
    return f"an array of shape {array.shape} and type {array.dtype}"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file that takes `path`'s place when the block ends without an exception, and otherwise leaves no trace.

    A link is followed; a device or pipe is written to directly.
    """
    real = os.path.realpath(path)
    if os.path.exists(real) and not os.path.isfile(real):
        with open(real, "wb") as file:
            yield file
        return
    folder, name = os.path.split(real)
    partial = os.path.join(folder, f".{name}.{os.getpid()}.part")
    try:
        with open(partial, "xb") as file:
            yield file
        if os.path.exists(real):
            shutil.copymode(real, partial)
        os.replace(partial, real)
    except BaseException:
        if os.path.exists(partial):
            os.unlink(partial)
        raise


def check_writable(path: Path, inputs: Sequence[Path] = ()) -> None:
    """Raise InputError, before any work is done, if `path` can't be written or is one of the inputs."""
    real = os.path.realpath(path)
    for source in inputs:
        if os.path.realpath(source) == real:
            raise InputError(f"{path}: is an input, and would be overwritten")
    try:
        if os.path.isdir(real):
            raise IsADirectoryError(0, "is a directory")
        if os.path.exists(real) and not os.access(real, os.W_OK):
            raise PermissionError(0, "permission denied")
        if not os.path.exists(real) or os.path.isfile(real):
            partial = os.path.join(os.path.dirname(real), f".{os.path.basename(real)}.{os.getpid()}.part")
            with open(partial, "xb"):
                pass
            os.unlink(partial)
    except OSError as error:
        raise InputError(f"{path}: can't be written: {reason(error)}") from None
