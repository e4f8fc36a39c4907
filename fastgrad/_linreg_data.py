"""The rows a linear regression learns from, read piece by piece so that a table may be larger than memory.

`Rows` is the table: `X` (n, columns) and `y` (n,) or (n, k), arrays or memory maps, cut into pieces of `PIECE` rows.
Each piece is divided into training and validation rows by its own seeded permutation, so the split is the same on
every pass and needs no memory. `moments` is the first pass (means, scales, bad values), `closed_form` the
least-squares solution by a streaming QR, `evaluate` the errors of given coefficients, and `MemoryBatches` and
`StreamBatches` hand out an epoch's shuffled rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PIECE = 4096
BLOCK = 65536
CLOSED_FORM_WORK = 2e12  # n p², about a minute of arithmetic
CLOSED_FORM_COLUMNS = 4000

Linear = tuple[np.ndarray, np.ndarray]  # coefficients (p,) or (p, k) and intercepts () or (k,)


def is_mapped(array: Any) -> bool:
    """Whether an array's memory is a file's."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


@dataclass
class Rows:
    """A table of numbers: features `X[:, columns]`, target `y` (None when predicting), and the rows for validation.

    `names` are the features' names and `row_label` turns a row's index into what a message calls it.
    """

    X: np.ndarray
    y: np.ndarray | None
    names: Sequence[str]
    columns: Any = field(default_factory=lambda: slice(None))
    target: str = "target"
    val_fraction: float = 0.0
    seed: int = 0
    row_label: Callable[[int], int] = int

    def __len__(self) -> int:
        return len(self.X)

    @property
    def features(self) -> int:
        return len(self.names)

    def spans(self) -> Iterator[tuple[int, int]]:
        """The pieces' first row and end, in order."""
        return ((start, min(start + PIECE, len(self))) for start in range(0, len(self), PIECE))

    def read(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and target of the rows from `start` to `stop` in float64 (an empty target if there is none)."""
        x = np.asarray(self.X[start:stop, self.columns], dtype=np.float64)
        y = np.empty(0) if self.y is None else np.asarray(self.y[start:stop], dtype=np.float64)
        return x, y

    def validation(self, start: int, stop: int) -> np.ndarray:
        """Which of the rows from `start` to `stop` (one piece) are for validation: a mask."""
        n = stop - start
        mask = np.zeros(n, dtype=bool)
        if self.val_fraction > 0:
            count = min(round(n * self.val_fraction), n - 1)
            mask[np.random.default_rng([self.seed, start // PIECE]).permutation(n)[:count]] = True
        return mask

    def training(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Features and target of one piece's training rows."""
        x, y = self.read(start, stop)
        if self.val_fraction == 0:
            return x, y
        keep = ~self.validation(start, stop)
        return x[keep], y[keep]

    def check(self) -> None:
        """Read everything once; raises ValueError that names the row and column of the first NaN or infinity."""
        for start, stop in self.spans():
            self.check_finite(start, *self.read(start, stop))

    def check_finite(self, start: int, x: np.ndarray, y: np.ndarray) -> None:
        for values, names in ((x, self.names), (y, None)):
            if np.isfinite(values).all():
                continue
            row, *column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            name = self.target if names is None else names[column[0]]
            value = values[(row, *column)]
            raise ValueError(f"row {self.row_label(start + row)}, column {name}: {value:g} is not a finite number")


class Running:
    """Count, mean and sum of squared deviations of rows seen so far (Chan, Golub and LeVeque's update)."""

    def __init__(self, shape: tuple[int, ...]):
        self.n = 0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        n = len(values)
        if n == 0:
            return
        mean = values.mean(axis=0)
        delta = mean - self.mean
        total = self.n + n
        self.squares += ((values - mean) ** 2).sum(axis=0) + delta**2 * (self.n * n / total)
        self.mean += delta * (n / total)
        self.n = total

    @property
    def variance(self) -> np.ndarray:
        return self.squares / max(self.n, 1)


@dataclass
class Moments:
    """What one pass over the table tells: the standardisation, the features that never vary, the target's spread."""

    x_mean: np.ndarray
    x_scale: np.ndarray
    y_mean: np.ndarray
    y_scale: np.ndarray
    constant: np.ndarray
    train: Running
    val: Running

    def standardise(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x - self.x_mean) / self.x_scale, (y - self.y_mean) / self.y_scale

    def undo(self, weight: np.ndarray, bias: np.ndarray) -> Linear:
        """Coefficients and intercept in original units of a model of standardised features and target."""
        scale = self.x_scale.reshape((-1,) + (1,) * (weight.ndim - 1))
        coef = weight / scale * self.y_scale
        return coef, bias * self.y_scale + self.y_mean - self.x_mean @ coef

    def penalty(self, coef: np.ndarray) -> float:
        """Σ (coef · scale)² of coefficients (p,) in original units."""
        return float((np.where(self.constant, 0.0, self.x_scale) ** 2 * coef**2).sum())


def moments(rows: Rows, centre: bool = True) -> Moments:
    """Means and scales of the training rows, in one pass that also looks for NaN and infinity in all rows.

    The scale is the standard deviation, or with `centre=False` the root mean square. A feature that never varies
    (then: is always zero) gets the scale infinity, so that it is 0 when standardised and its coefficient is 0 in
    original units.
    """
    shape = () if rows.y is None else rows.y.shape[1:]
    features, train, val = Running((rows.features,)), Running(shape), Running(shape)
    low, high = np.full(rows.features, np.inf), np.full(rows.features, -np.inf)
    for start, stop in rows.spans():
        x, y = rows.read(start, stop)
        rows.check_finite(start, x, y)
        held_out = rows.validation(start, stop)
        val.add(y[held_out])
        x, y = x[~held_out], y[~held_out]
        features.add(x)
        train.add(y)
        np.minimum(low, x.min(axis=0), out=low)
        np.maximum(high, x.max(axis=0), out=high)
    if centre:
        x_mean, x_scale = features.mean, np.sqrt(features.variance)
        y_mean, y_scale = train.mean, np.sqrt(train.variance)
        constant = (low == high) | (x_scale <= 10 * np.finfo(float).eps * np.abs(x_mean))
    else:
        x_mean, x_scale = np.zeros(rows.features), np.sqrt(features.variance + features.mean**2)
        y_mean, y_scale = np.zeros(shape), np.sqrt(train.variance + train.mean**2)
        constant = x_scale == 0
    x_scale = np.where(constant, np.inf, x_scale)
    y_scale = np.where(y_scale == 0, 1.0, y_scale)
    return Moments(x_mean, x_scale, y_mean, y_scale, constant, train, val)


def closed_form(rows: Rows, stats: Moments, l2: float = 0.0) -> Linear | None:
    """The minimum of mean((y - X coef - intercept)²) + l2 Σ (coef · scale)², in original units; None if far too large.

    The triangle of a QR factorisation is updated block by block, so the condition is not squared and the memory is
    p². Where the minimum is not unique it is the one with the smallest standardised coefficients, as of gradient
    descent from zero.
    """
    p = rows.features
    if p > CLOSED_FORM_COLUMNS or len(rows) * float(p) ** 2 > CLOSED_FORM_WORK:
        return None
    triangle = np.zeros((0, p + int(np.prod(stats.y_scale.shape))))
    waiting: list[np.ndarray] = []
    for start, stop in rows.spans():
        x, y = stats.standardise(*rows.training(start, stop))
        waiting.append(np.hstack([x, y.reshape(len(x), -1)]))
        if sum(map(len, waiting)) >= max(4 * p, BLOCK) or stop == len(rows):
            triangle = np.asarray(np.linalg.qr(np.vstack([triangle, *waiting]), mode="r"))
            waiting = []
    ridge = np.zeros((p if l2 > 0 else 0, triangle.shape[1]))
    np.fill_diagonal(ridge, np.sqrt(stats.train.n * l2))
    system = np.vstack([triangle, ridge])
    weight = np.linalg.lstsq(system[:, :p], system[:, p:], rcond=None)[0]
    return stats.undo(weight.reshape((p, *stats.y_scale.shape)), np.zeros(stats.y_scale.shape))


@dataclass
class Errors:
    """Mean squared error and R² on the training and on the validation rows (NaN where there are none)."""

    train_mse: float
    train_r2: float
    val_mse: float
    val_r2: float


def r2(residual: float, total: float) -> float:
    """1 - residual / total; for a target that never varies 1 if it is met exactly and otherwise 0."""
    if total == 0:
        return 1.0 if residual == 0 else 0.0
    return 1.0 - residual / total


def evaluate(rows: Rows, stats: Moments, models: Sequence[Linear]) -> list[Errors]:
    """The errors of several models of one target, in one pass over the table."""
    squares = np.zeros((len(models), 2))
    for start, stop in rows.spans():
        x, y = rows.read(start, stop)
        held_out = rows.validation(start, stop)
        for sums, (coef, intercept) in zip(squares, models, strict=True):
            residuals = (y - x @ coef - intercept) ** 2
            sums += residuals[~held_out].sum(), residuals[held_out].sum()
    errors = []
    for train, val in squares:
        n = stats.val.n
        errors.append(
            Errors(
                train / stats.train.n,
                r2(train, float(stats.train.squares)),
                val / n if n else np.nan,
                r2(val, float(stats.val.squares)) if n > 1 else np.nan,
            )
        )
    return errors


Block = tuple[np.ndarray, np.ndarray]


class MemoryBatches:
    """The standardised training rows in memory (float32); an epoch is one permutation of them, handed out in blocks."""

    def __init__(self, rows: Rows, stats: Moments, batch: int, rng: np.random.Generator):
        n = stats.train.n
        self.x = np.empty((n, rows.features), dtype=np.float32)
        self.y = np.empty((n, *stats.y_scale.shape), dtype=np.float32)
        end = 0
        for start, stop in rows.spans():
            x, y = stats.standardise(*rows.training(start, stop))
            begin, end = end, end + len(x)
            self.x[begin:end], self.y[begin:end] = x, y
        self.block = max(BLOCK // batch, 1) * batch
        self.rng = rng

    def epoch(self) -> Iterator[Block]:
        """All rows once, shuffled, in blocks of whole batches; only the last may end with a shorter batch."""
        order = self.rng.permutation(len(self.x))
        for start in range(0, len(order), self.block):
            part = order[start : start + self.block]
            yield self.x.take(part, axis=0), self.y.take(part, axis=0)


class StreamBatches:
    """Training rows read anew every epoch: pieces in random order, about 16 of them shuffled together, then batches."""

    def __init__(self, rows: Rows, stats: Moments, batch: int, rng: np.random.Generator):
        self.rows, self.stats, self.batch, self.rng = rows, stats, batch, rng

    def epoch(self) -> Iterator[Block]:
        """As of `MemoryBatches`; rows that do not fill a batch wait for the next block."""
        spans = list(self.rows.spans())
        order = self.rng.permutation(len(spans))
        held: list[Block] = []
        for position, index in enumerate(order, 1):
            x, y = self.stats.standardise(*self.rows.training(*spans[index]))
            held.append((x.astype(np.float32), y.astype(np.float32)))
            count = sum(len(x) for x, _ in held)
            if position < len(order) and count < max(BLOCK, self.batch):
                continue
            mixed = self.rng.permutation(count)
            x = np.concatenate([x for x, _ in held]).take(mixed, axis=0)
            y = np.concatenate([y for _, y in held]).take(mixed, axis=0)
            whole = count if position == len(order) else count - count % self.batch
            held = [(x[whole:], y[whole:])]
            yield x[:whole], y[:whole]
