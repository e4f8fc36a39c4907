"""Training of a linear model by mini-batches: the compiled step, the learning rate, and when to stop.

`Trainer` sees standardised float32 blocks only. Its objective is Σ(residual²)/batch + l2 Σ w², so a last, shorter batch
counts by its rows and every row has the same weight in an epoch (dividing by the short batch's own length makes the
fit a hundred times less exact on small data).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from . import compile as compile_step
from . import float32, float64, optim, zeros
from ._linreg_data import Block, MemoryBatches, StreamBatches
from .interrupts import CtrlC

OPTIMIZERS = ("sgd", "momentum", "adam")
DIVERGED = 1e4  # times the target's variance, which is the loss that training starts with
WINDOW_STEPS = 400
LAST_RATE = 1e-3
MOMENTUM = 0.9
PROBE_ROWS = 4096


@dataclass
class Settings:
    """What the estimator's parameters say about training; `batch` is at most the number of training rows."""

    optimizer: str
    lr: float | None
    epochs: int
    batch: int
    l2: float
    tolerance: float
    intercept: bool
    verbose: bool


class Schedule:
    """Halves the learning rate whenever the loss stops falling; tells when a thousandth of the first rate is reached.

    The loss is averaged over windows of at least `WINDOW_STEPS` steps, since an epoch of few steps says little. In
    the second half of the epochs that are allowed the rate also goes down to zero in a straight line, so that a fit
    that is cut short by their number is free of the noise of large steps.
    """

    def __init__(self, optimizer: Any, tolerance: float, steps_per_epoch: int):
        self.group = optimizer.param_groups[0]
        self.rate = self.group["lr"]
        self.last = self.rate * LAST_RATE
        self.tolerance = tolerance
        self.window = -(-WINDOW_STEPS // steps_per_epoch)
        self.losses: list[float] = []
        self.previous = np.inf

    def cool(self, progress: float) -> None:
        """Set the rate for the steps ahead, at this share (0 to 1) of all epochs."""
        self.group["lr"] = self.rate * min(1.0, 2 * (1 - progress))

    def finished(self, loss: float) -> bool:
        """Take an epoch's loss; whether training has converged."""
        self.losses.append(loss)
        if len(self.losses) < self.window:
            return False
        mean = float(np.mean(self.losses))
        self.losses.clear()
        if not mean < self.previous * (1 - self.tolerance):
            self.rate /= 2
        self.previous = mean
        return self.rate < self.last


@dataclass
class Trained:
    """Standardised weights and bias, the losses by epoch (fractions of the target's variance), and how it went."""

    weight: np.ndarray
    bias: np.ndarray
    rate: float
    losses: list[np.ndarray] = field(default_factory=list)
    steps: int = 0
    converged: bool = False
    interrupted: bool = False
    first_step_seconds: float = 0.0
    seconds: float = 0.0


def automatic_rate(x: np.ndarray, settings: Settings) -> float:
    """A learning rate that is safe for these standardised rows.

    With gradients of mini-batches, steps are stable while rate · (λ + m/batch) < 1, where λ is the largest eigenvalue
    of the features' second moments and m = E|x|⁴ / E|x|² (the features' number, for rows without outliers). Momentum
    allows steps twice as long for λ, but adds up 1/(1 - momentum) noisy ones. Adam moves every weight by about its
    rate, which changes predictions by up to rate · sqrt(λ p). Half and a quarter of the limit, with twice the noise,
    held in trials with t-distributed, sparse and correlated features, in batches of 1 to 128.
    """
    x = x[:PROBE_ROWS].astype(np.float64)
    lengths = (x**2).sum(axis=1)
    if not lengths.any():
        return 0.1
    v = np.ones(x.shape[1]) + 0.01 * np.arange(x.shape[1])
    largest = 0.0
    for _ in range(20):
        v /= np.linalg.norm(v)
        v = x.T @ (x @ v) / len(x)
        largest = float(np.linalg.norm(v))
        if largest == 0:
            break
    largest = max(largest, float((x**2).mean(axis=0).max()))
    if settings.optimizer == "adam":
        return min(0.1, 0.6 / float(np.sqrt(largest * x.shape[1])))
    noise = 2 * float((lengths**2).mean() / lengths.mean()) / settings.batch
    if settings.optimizer == "sgd":
        return 0.5 / (largest + settings.l2 + noise)
    return 0.25 / (largest + settings.l2 + noise / (1 - MOMENTUM))


def make_step(weight: Any, bias: Any, optimizer: Any, total: Any, settings: Settings) -> Any:
    """One compiled training step; it adds the batch's squared errors to `total`, so that nothing is read in between."""
    batch, l2 = settings.batch, settings.l2

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        predicted = x @ weight if bias is None else x @ weight + bias
        residual = predicted - y
        squares = (residual * residual).sum(0)
        loss = squares.sum() / batch
        if l2 > 0:
            loss = loss + (weight * weight).sum() * (l2 * len(x) / batch)
        loss.backward()
        optimizer.step()
        total.add_(squares.detach())
        return loss

    return compile_step(step)


def parts(blocks: Iterator[Block], size: int) -> Iterator[Block]:
    """The blocks, cut into parts of at most `size` rows: the learning rate changes and progress shows between them."""
    for x, y in blocks:
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]


class Trainer:
    """Weights of `shape` (p,) or (p, k) with their optimizer, trained from zero on `rows` training rows."""

    def __init__(self, batches: MemoryBatches | StreamBatches, rows: int, shape: tuple[int, ...], settings: Settings):
        self.batches, self.rows, self.shape, self.settings = batches, rows, shape, settings
        self.safe = automatic_rate(next(batches.epoch())[0], settings)
        rate = self.safe if settings.lr is None else settings.lr
        self.weight = zeros(shape, dtype=float32, requires_grad=True)
        self.bias = zeros(shape[1:], dtype=float32, requires_grad=True) if settings.intercept else None
        parameters = [self.weight] if self.bias is None else [self.weight, self.bias]
        if settings.optimizer == "adam":
            optimizer: Any = optim.Adam(parameters, lr=rate)
        else:
            momentum = MOMENTUM if settings.optimizer == "momentum" else 0.0
            optimizer = optim.SGD(parameters, lr=rate, momentum=momentum)
        self.total = zeros(shape[1:], dtype=float64)
        self.step = make_step(self.weight, self.bias, optimizer, self.total, settings)
        self.schedule = Schedule(optimizer, settings.tolerance, -(-rows // settings.batch))
        self.result = Trained(np.zeros(shape), np.zeros(shape[1:]), rate)

    def part(self, x: np.ndarray, y: np.ndarray) -> int:
        """Step through the batches of some rows; returns the number of rows met before Ctrl-C."""
        batch, count = self.settings.batch, 0
        try:
            if self.result.steps == 0:
                started = time.perf_counter()
                count = self.step.loop(x[:batch], y[:batch]).size
                self.result.first_step_seconds = time.perf_counter() - started
            if len(x) > batch * count:
                count += self.step.loop(x[batch * count :], y[batch * count :], batch_size=batch).size
        except KeyboardInterrupt as error:
            count += error.steps  # type: ignore[attr-defined]
        self.result.steps += count
        return min(count * batch, len(x))

    def epoch(self, number: int, ctrl_c: CtrlC, progress: Callable[[float, float], None]) -> np.ndarray:
        """One pass over the rows; returns the mean squared errors. Raises FloatingPointError if they diverge."""
        seen, loss, epochs = 0, np.zeros(self.shape[1:]), self.settings.epochs
        self.total.zero_()
        batches = min(max(64, self.rows // (16 * self.settings.batch)), 512)
        for x, y in parts(self.batches.epoch(), self.settings.batch * batches):
            self.schedule.cool((number - 1 + seen / self.rows) / epochs)
            seen += self.part(x, y)
            loss = np.array(self.total.tolist()) / seen
            if not np.all(loss < DIVERGED):
                rate = self.result.rate
                at = f"in epoch {number} at learning rate {rate:g}"
                better = min(self.safe, rate / 10)
                raise FloatingPointError(f"the loss diverged {at}; try a learning rate of {better:.2g}")
            progress(float(loss.mean()), len(x) / self.rows)
            if ctrl_c.pressed:
                break
        return loss

    def read_weights(self) -> tuple[np.ndarray, np.ndarray]:
        """Weight and bias as they are now, which are also those of the result."""
        bias = np.zeros(self.shape[1:]) if self.bias is None else np.array(self.bias.tolist())
        self.result.weight, self.result.bias = np.array(self.weight.tolist()), bias
        return self.result.weight, bias

    def run(self, scale: float, after_epoch: Callable[[np.ndarray, np.ndarray], None]) -> Trained:
        """Train until the schedule or the epochs end, or until Ctrl-C, after the running batch.

        `scale` turns a loss into the target's units for the progress line; `after_epoch` gets weight and bias.
        """
        settings, result = self.settings, self.result
        layout = "epoch {n:.1f}/{total}{postfix} |{bar:20}| {elapsed}<{remaining}"
        hidden = None if settings.verbose else True
        with CtrlC() as ctrl_c, tqdm(total=settings.epochs, disable=hidden, bar_format=layout) as bar:

            def progress(loss: float, share: float) -> None:
                rate = self.schedule.group["lr"]
                bar.set_postfix_str(f"loss {loss * scale:.6g} rate {rate:.2g}", refresh=False)
                bar.update(share)

            for number in range(1, settings.epochs + 1):
                started = time.perf_counter()
                loss = self.epoch(number, ctrl_c, progress)
                weight, bias = self.read_weights()
                result.seconds += time.perf_counter() - started
                result.losses.append(loss)
                result.interrupted = ctrl_c.pressed
                after_epoch(weight, bias)
                objective = float(loss.mean() + settings.l2 * (weight**2).sum() / loss.size)
                result.converged = not result.interrupted and self.schedule.finished(objective)
                if result.interrupted or result.converged:
                    break
        result.seconds -= result.first_step_seconds
        return result
