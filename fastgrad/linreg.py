"""Linear regression by mini-batch gradient descent: the estimator, and the command `fastgrad-linreg`.

`LinearRegression` follows scikit-learn's conventions and needs no scikit-learn. What it is given is made arrays by
`_linreg_inputs`; the table is read by `_linreg_data`, trained by `_linreg_train` (one compiled step), files are read and written by `_linreg_files`, and the command line is
`_linreg_cli`.
"""

from __future__ import annotations

import inspect
import json
import math
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_safetensors

from ._linreg_data import BLOCK, Linear, MemoryBatches, Moments, Rows, StreamBatches, is_mapped, moments
from ._linreg_files import replacing
from ._linreg_inputs import NotFittedError, check_finite, check_names, column_names, features, not_fitted, targets
from ._linreg_train import OPTIMIZERS, Settings, Trainer

__all__ = ["DataWarning", "LinearRegression", "NotFittedError", "main"]

FORMAT = "fastgrad.linreg.1"


class DataWarning(UserWarning):
    """The data determine less than they seem to: a feature that never varies, fewer rows than features."""


class LinearRegression:
    """Least squares, with an optional ridge penalty, trained by mini-batches.

    Minimises mean((y - X coef - intercept)²) + l2 Σ (coef · scale)², where scale is each feature's standard
    deviation: features and target are standardised inside, and coefficients are in original units. `X` may be a
    memory map larger than memory; it is then read in pieces, every epoch anew.

    Args:
        optimizer: "sgd", "momentum" (0.9) or "adam".
        lr: learning rate for standardised data; None chooses one that is safe for the data. It is halved whenever
            the loss stops falling, training ends at a thousandth of it, and it fades out over the second half of
            `epochs`.
        epochs: at most so many passes over the rows.
        batch_size: rows a step.
        l2: weight of the penalty; scikit-learn's Ridge on standardised features has alpha = l2 · rows.
        tolerance: the relative fall of the loss that counts as falling.
        val_fraction: share of the rows, in [0, 1), that is held out from training and only watched.
        fit_intercept: False forces the intercept 0.
        seed: of the split and the order of the rows.
        verbose: show progress on standard error, if that is a terminal.

    Attributes:
        coef_: (p,), or (k, p) for a 2-D target. intercept_: float, or (k,).
        n_features_in_, and feature_names_in_ if `X` was a data frame whose columns have text for names.
        n_iter_: epochs begun. n_steps_: optimizer steps. converged_: whether training ended before `epochs` did.
        lr_: the learning rate at the start.
        loss_curve_: mean squared error by epoch, as met while the weights changed, in the target's units squared.
        val_loss_curve_: of the held-out rows after each epoch; empty without them, or when `X` is a memory map.

    >>> from fastgrad.data import load_diabetes
    >>> X, y, names = load_diabetes()
    >>> model = LinearRegression().fit(X, y)
    >>> round(model.score(X, y), 4)
    0.5177
    """

    _estimator_type = "regressor"
    target_name_: str
    _labelled: bool = False  # feature_names_in_ are labels from a file: the model was fitted without names

    def __init__(
        self,
        *,
        optimizer: str = "momentum",
        lr: float | None = None,
        epochs: int = 2000,
        batch_size: int = 32,
        l2: float = 0.0,
        tolerance: float = 1e-4,
        val_fraction: float = 0.0,
        fit_intercept: bool = True,
        seed: int = 0,
        verbose: bool = False,
    ):
        self.optimizer = optimizer
        self.lr = lr
        self.epochs = epochs
        self.batch_size = batch_size
        self.l2 = l2
        self.tolerance = tolerance
        self.val_fraction = val_fraction
        self.fit_intercept = fit_intercept
        self.seed = seed
        self.verbose = verbose

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            name: getattr(self, name) for name in inspect.signature(type(self).__init__).parameters if name != "self"
        }

    def set_params(self, **params: Any) -> LinearRegression:
        """Change arguments of the constructor; raises ValueError for a name it doesn't have."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(f"LinearRegression has no parameter {name!r}; it has {', '.join(known)}")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        default = inspect.signature(type(self).__init__).parameters
        changed = (f"{name}={value!r}" for name, value in self.get_params().items() if value != default[name].default)
        return f"LinearRegression({', '.join(changed)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks an estimator about itself; only scikit-learn calls it."""
        from sklearn.utils import InputTags, RegressorTags, Tags, TargetTags

        target = TargetTags(required=True, two_d_labels=False, multi_output=True)
        return Tags("regressor", target, regressor_tags=RegressorTags(), input_tags=InputTags())

    def fit(self, X: Any, y: Any) -> LinearRegression:
        """Train on features `X` (n, p) and a target `y` (n,) or (n, k).

        Both may be lists, arrays, or pandas' frames and series: truths, integers, nullable columns and objects count as
        the numbers that they are. Raises ValueError for wrong shapes, parameters, text, complex numbers, NaN, infinity
        or missing values, TypeError for sparse matrices, dates, and names of columns that are only partly text, and
        FloatingPointError if the loss diverges; warns with DataWarning about features that never vary and about fewer rows than features. Ctrl-C stops after
        the running batch; what has been learned is kept, and KeyboardInterrupt is raised.
        """
        columns = column_names(X)
        inputs = features(X)
        target = targets(y, len(inputs))
        names = list(map(str, range(inputs.shape[1]) if columns is None else columns))
        rows = Rows(inputs, target, names)
        self.fit_rows(rows)
        for name in ("feature_names_in_", "_labelled"):
            self.__dict__.pop(name, None)
        if columns is not None:
            self.feature_names_in_ = columns
        if self.interrupted_:
            raise KeyboardInterrupt
        return self

    def fit_rows(self, rows: Rows) -> Moments:
        """Train on a table; what `fit` and the command share. Sets `interrupted_` on Ctrl-C instead of raising."""
        self._check_params()
        rows.val_fraction, rows.seed = self.val_fraction, self.seed
        if len(rows) == 0 or rows.features == 0:
            raise ValueError(f"nothing to learn from: {len(rows)} rows, {rows.features} features")
        stats = moments(rows, centre=self.fit_intercept)
        for name, constant in zip(rows.names, stats.constant, strict=True):
            if constant:
                warnings.warn(f"column {name} never varies; its coefficient is 0", DataWarning, stacklevel=3)
        if stats.train.n < rows.features + self.fit_intercept:
            message = f"{stats.train.n} training rows don't determine {rows.features} coefficients"
            warnings.warn(f"{message}; the smallest that fit are chosen", DataWarning, stacklevel=3)

        mapped = is_mapped(rows.X)
        batch = min(self.batch_size, stats.train.n)
        batches = (StreamBatches if mapped else MemoryBatches)(rows, stats, batch, np.random.default_rng(self.seed))
        units = stats.y_scale**2
        self.val_loss_curve_: list[float] = []
        held_out = None if mapped or stats.val.n == 0 else held_out_rows(rows, stats)

        def watch(weight: np.ndarray, bias: np.ndarray) -> None:
            if held_out is not None:
                x, y = held_out
                self.val_loss_curve_.append(float(((((x @ weight + bias) - y) ** 2).mean(axis=0) * units).mean()))

        settings = Settings(
            optimizer=self.optimizer,
            lr=self.lr,
            epochs=self.epochs,
            batch=batch,
            l2=self.l2,
            tolerance=self.tolerance,
            intercept=self.fit_intercept,
            verbose=self.verbose,
        )
        shape = (rows.features, *stats.y_scale.shape)
        result = Trainer(batches, stats.train.n, shape, settings).run(float(units.mean()), watch)
        coef, intercept = stats.undo(result.weight, result.bias)
        self.coef_ = np.ascontiguousarray(coef.T)
        self.intercept_ = intercept if intercept.ndim else float(intercept)
        self.n_features_in_ = rows.features
        self.loss_curve_ = [float((loss * units).mean()) for loss in result.losses]
        self.n_iter_, self.n_steps_ = len(result.losses), result.steps
        self.lr_, self.converged_, self.interrupted_ = result.rate, result.converged, result.interrupted
        self.first_step_seconds_, self.fit_seconds_ = result.first_step_seconds, result.seconds
        return stats

    def _check_params(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} must be a positive integer, not {value!r}")
        if not isinstance(self.seed, (int, np.integer)) or self.seed < 0:
            raise ValueError(f"seed must be a non-negative integer, not {self.seed!r}")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be positive, or None, not {self.lr!r}")
        for name in ("l2", "tolerance"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be non-negative, not {getattr(self, name)!r}")
        if not 0 <= self.val_fraction < 1:
            raise ValueError(f"val_fraction must be at least 0 and less than 1, not {self.val_fraction!r}")

    def _fitted(self) -> None:
        if not hasattr(self, "coef_"):
            raise not_fitted("this LinearRegression is not fitted yet; call fit(X, y) first")

    def predict(self, X: Any) -> np.ndarray:
        """Predictions (n,), or (n, k) for a 2-D target, of features (n, p).

        Raises NotFittedError before `fit`, and ValueError for another number of features, for a data frame whose columns
        have other names or another order than those of `fit`, and for all that `fit` refuses. Warns if only one of the
        two had names.
        """
        self._fitted()
        check_names(self, X)
        inputs = features(X)
        if inputs.shape[1] != self.n_features_in_:
            who = type(self).__name__
            raise ValueError(f"X has {inputs.shape[1]} features, but {who} is expecting {self.n_features_in_} features")
        return self.predict_rows(inputs)

    def predict_rows(self, inputs: np.ndarray) -> np.ndarray:
        """Predictions of an array whose columns are those of `fit`; what `predict` and the command share."""
        predictions = np.empty((len(inputs), *self.coef_.shape[:-1]))
        for start in range(0, len(inputs), BLOCK):
            block = inputs[start : start + BLOCK]
            check_finite(block, "X")
            predictions[start : start + BLOCK] = block @ self.coef_.T + self.intercept_
        return predictions

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R² of the predictions, averaged over the targets if there are several; rows count by `sample_weight` (n,), or alike.

        Of a single row it isn't defined: NaN, with a DataWarning.
        """
        predicted = self.predict(X)
        target = targets(y, len(predicted))
        check_finite(target, "y")
        if target.shape != predicted.shape:
            raise ValueError(f"y has shape {target.shape}, the predictions have {predicted.shape}")
        if len(target) < 2:
            warnings.warn("R² is not defined for less than two rows", DataWarning, stacklevel=2)
            return math.nan
        weight = np.ones(len(target)) if sample_weight is None else np.asarray(sample_weight, np.float64)
        if weight.shape != (len(target),):
            raise ValueError(f"sample_weight must have shape ({len(target)},), not {weight.shape}")
        residual = weight @ (target - predicted) ** 2
        total = weight @ (target - np.average(target, axis=0, weights=weight)) ** 2
        explained = 1 - residual / np.where(total == 0, 1, total)
        return float(np.where(total == 0, np.where(residual == 0, 1.0, 0.0), explained).mean())

    def save(self, path: str | PathLike[str], features: Sequence[str] | None = None, target: str = "target") -> None:
        """Write the fitted model as a safetensors file, with its parameters and the columns' names in the metadata.

        `features` are names for the columns, by default those of `fit`; frames are compared with them after `load`.
        """
        self._fitted()
        fitted = hasattr(self, "feature_names_in_")
        if features is None and fitted:
            features = list(self.feature_names_in_)
        metadata = {
            "format": FORMAT,
            "features": json.dumps(None if features is None else list(features)),
            "labelled": json.dumps(self._labelled or not fitted),
            "target": target,
            "params": json.dumps(self.get_params(), default=float),
        }
        tensors = {"coef": self.coef_, "intercept": np.atleast_1d(self.intercept_)}
        with replacing(path) as file:
            file.write(to_safetensors(tensors, metadata))

    @classmethod
    def load(cls, path: str | PathLike[str]) -> LinearRegression:
        """A model written by `save`, ready to predict; raises ValueError for a file that isn't one.

        `feature_names_in_`, if the model had names, and `target_name_` are the columns' names.
        """
        try:
            with safe_open(str(path), framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != FORMAT:
                    raise ValueError("not a model of fastgrad.linreg")
                coef, intercept = file.get_tensor("coef"), file.get_tensor("intercept")
        except SafetensorError as error:
            raise ValueError(f"not a safetensors file ({error})") from None
        model = cls(**json.loads(metadata["params"]))
        model.coef_, model.intercept_ = coef, intercept if coef.ndim == 2 else float(intercept[0])
        names = json.loads(metadata["features"])
        if names is not None:
            model.feature_names_in_ = np.array(names, dtype=object)
            model._labelled = json.loads(metadata["labelled"])
        model.n_features_in_ = coef.shape[-1]
        model.target_name_ = metadata["target"]
        return model


def held_out_rows(rows: Rows, stats: Moments) -> Linear:
    """The standardised validation rows."""
    parts = [stats.standardise(*(part[rows.validation(*span)] for part in rows.read(*span))) for span in rows.spans()]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def main(argv: Sequence[str] | None = None) -> int:
    """The command `fastgrad-linreg`; returns its exit status."""
    from ._linreg_cli import main as run

    return run(argv)


if __name__ == "__main__":
    raise SystemExit(main())
