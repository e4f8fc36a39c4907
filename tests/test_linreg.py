"""The linear-regression trainer: the estimator's behaviour, the command's report, and every kind of bad input."""

from __future__ import annotations

import math
import os
import select
import signal
import struct
import subprocess
import sys
import tracemalloc
import warnings

import numpy as np
import pytest

import fastgrad
from fastgrad import _linreg_cli, _linreg_data, _linreg_files, _linreg_train
from fastgrad.data import DIABETES_CSV, load_diabetes
from fastgrad.linreg import DataWarning, LinearRegression, NotFittedError, main


def least_squares(X, y, l2=0.0):
    """Coefficients (p, ...) and intercept by NumPy; the penalty is on standardised coefficients."""
    centre, scale = X.mean(axis=0), X.std(axis=0)
    Z = (X - centre) / scale
    Z = np.vstack([Z, np.sqrt(l2 * len(X)) * np.eye(X.shape[1])])
    t = np.vstack([(y - y.mean(axis=0)).reshape(len(y), -1), np.zeros((X.shape[1], y[0].size))])
    coef = (np.linalg.lstsq(Z, t, rcond=None)[0] / scale[:, None]).reshape(X.shape[1], *y.shape[1:])
    return coef, y.mean(axis=0) - centre @ coef


def mse(X, y, coef, intercept):
    return float(((y - X @ coef - intercept) ** 2).mean())


def problem(n=300, p=4, noise=0.5, seed=0, targets=()):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p)) * rng.uniform(0.1, 100, p) + rng.uniform(-50, 50, p)
    y = X @ rng.normal(size=(p, *targets)) + 3 + noise * rng.normal(size=(n, *targets))
    return X, y


@pytest.fixture(scope="module")
def diabetes():
    return load_diabetes()


# The data set


def test_the_diabetes_data_are_those_of_the_study(diabetes):
    X, y, names = diabetes
    assert X.shape == (442, 10) and y.shape == (442,)
    assert names == ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]
    assert X[0].tolist() == [59, 2, 32.1, 101, 157, 93.2, 38, 4, 4.8598, 87] and y[0] == 151


def test_the_diabetes_data_are_scikit_learns(diabetes):
    reference = pytest.importorskip("sklearn.datasets").load_diabetes(scaled=False)
    assert np.array_equal(diabetes.data, reference.data) and np.array_equal(diabetes.target, reference.target)


# The fit


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_defaults_reach_the_closed_form_loss_to_four_digits(diabetes, optimizer):
    X, y, _ = diabetes
    model = LinearRegression(optimizer=optimizer).fit(X, y)
    best = mse(X, y, *least_squares(X, y))
    assert best <= mse(X, y, model.coef_, model.intercept_) < best * (1 + 2e-5)
    assert model.converged_ and model.n_iter_ == len(model.loss_curve_) < model.epochs


@pytest.mark.parametrize("batch_size", [16, 64, 441, 1000])
def test_the_batch_size_does_not_matter_for_the_result(diabetes, batch_size):
    X, y, _ = diabetes
    model = LinearRegression(batch_size=batch_size).fit(X, y)
    assert mse(X, y, model.coef_, model.intercept_) == pytest.approx(mse(X, y, *least_squares(X, y)), rel=5e-5)


def test_a_short_last_batch_counts_by_its_rows():
    X, y = problem(n=33)
    model = LinearRegression(batch_size=32).fit(X, y)
    coef, intercept = least_squares(X, y)
    assert np.allclose(model.coef_, coef, rtol=1e-3) and model.intercept_ == pytest.approx(intercept, rel=1e-2)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_the_penalty_is_ridge_on_standardised_features(diabetes, optimizer):
    X, y, _ = diabetes
    model = LinearRegression(l2=0.3, optimizer=optimizer, batch_size=64).fit(X, y)
    coef, intercept = least_squares(X, y, l2=0.3)

    def loss(coef, intercept):
        return mse(X, y, coef, intercept) + 0.3 * float(((coef * X.std(axis=0)) ** 2).sum())

    assert loss(model.coef_, model.intercept_) == pytest.approx(loss(coef, intercept), rel=1e-5)
    assert np.allclose(model.coef_ * X.std(axis=0), coef * X.std(axis=0), atol=0.1)


def test_several_targets_are_fitted_as_if_alone():
    X, y = problem(targets=(3,))
    y *= [1, 1e6, 1e-3]
    model = LinearRegression().fit(X, y)
    coef, intercept = least_squares(X, y)
    assert model.coef_.shape == (3, 4) and model.intercept_.shape == (3,)
    assert np.allclose(model.coef_, coef.T, rtol=1e-2) and np.allclose(model.intercept_, intercept, rtol=1e-2)
    assert model.predict(X).shape == y.shape and model.score(X, y) > 0.999


def test_a_column_as_target_keeps_its_shape():
    X, y = problem()
    model = LinearRegression().fit(X, y[:, None])
    assert model.coef_.shape == (1, 4) and model.intercept_.shape == (1,) and model.predict(X).shape == (300, 1)


def test_without_an_intercept_the_line_goes_through_zero():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 3)) + 5
    y = X @ [1.0, -2.0, 0.5] + rng.normal(size=200)
    model = LinearRegression(fit_intercept=False).fit(X, y)
    reference = np.linalg.lstsq(X, y, rcond=None)[0]
    assert model.intercept_ == 0
    assert ((y - X @ model.coef_) ** 2).mean() == pytest.approx(((y - X @ reference) ** 2).mean(), rel=5e-5)


def test_features_far_from_zero_lose_no_precision():
    rng = np.random.default_rng(0)
    centre = np.array([1e8, -1e6])
    X = centre + rng.normal(size=(500, 2))
    y = (X - centre) @ [2.0, 3.0] + 1
    model = LinearRegression().fit(X, y)
    assert np.allclose(model.coef_, [2, 3], atol=1e-4) and model.score(X, y) > 1 - 1e-6


def test_noise_free_data_are_fitted_exactly():
    X, y = problem(noise=0.0)
    assert LinearRegression().fit(X, y).score(X, y) > 1 - 1e-9


def test_a_constant_target_gives_coefficients_of_zero():
    X, _ = problem()
    model = LinearRegression().fit(X, np.full(len(X), 7.0))
    assert not model.coef_.any() and model.intercept_ == 7 and model.score(X, np.full(len(X), 7.0)) == 1


def test_a_feature_that_never_varies_warns_and_gets_zero():
    X, y = problem()
    coef, _ = least_squares(X, y)
    with pytest.warns(DataWarning, match="column 2 never varies"):
        model = LinearRegression().fit(np.insert(X, 2, 0.1, axis=1), y)
    assert model.coef_[2] == 0 and np.allclose(np.delete(model.coef_, 2), coef, rtol=1e-2)


def test_fewer_rows_than_features_warns_and_finds_the_smallest_coefficients():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(8, 20)), rng.normal(size=8)
    with pytest.warns(DataWarning, match="8 training rows don't determine 20 coefficients"):
        model = LinearRegression().fit(X, y)
    assert np.allclose(model.coef_, least_squares(X, y)[0], atol=1e-3)
    assert model.score(X, y) > 1 - 1e-5


def test_one_row_is_enough_to_run():
    with pytest.warns(DataWarning):
        model = LinearRegression().fit([[1.0]], [5.0])
    assert model.predict([[1.0]]).tolist() == [5.0]


def test_the_same_seed_gives_the_same_bits(diabetes):
    X, y, _ = diabetes
    first, again, other = (LinearRegression(epochs=5, seed=seed).fit(X, y) for seed in (1, 1, 2))
    assert np.array_equal(first.coef_, again.coef_) and first.loss_curve_ == again.loss_curve_
    assert not np.array_equal(first.coef_, other.coef_)


def test_fitting_again_starts_anew(diabetes):
    X, y, _ = diabetes
    model = LinearRegression(epochs=5)
    first = model.fit(X, y).coef_
    assert np.array_equal(first, model.fit(X, y).coef_)


def test_few_epochs_end_with_small_steps():
    X, y = problem(n=20000)
    model = LinearRegression(epochs=3).fit(X, y)
    best = mse(X, y, *least_squares(X, y))
    assert model.n_iter_ == 3 and not model.converged_
    assert mse(X, y, model.coef_, model.intercept_) < best * 1.01


def test_a_larger_tolerance_stops_sooner(diabetes):
    X, y, _ = diabetes
    loose, tight = (LinearRegression(tolerance=tolerance).fit(X, y) for tolerance in (0.5, 1e-4))
    assert loose.n_iter_ < tight.n_iter_


def test_held_out_rows_are_watched_and_not_learned_from(diabetes):
    X, y, _ = diabetes
    held_out = _linreg_data.Rows(X, y, range(10), val_fraction=0.25, seed=3).validation(0, 442)
    spoiled = y.copy()
    spoiled[held_out] += 1000
    first, other = (LinearRegression(val_fraction=0.25, seed=3, epochs=5).fit(X, t) for t in (y, spoiled))
    assert held_out.sum() == round(442 * 0.25)
    assert np.array_equal(first.coef_, other.coef_)
    residual = y[held_out] - first.predict(X[held_out])
    assert (
        first.val_loss_curve_[-1] == pytest.approx((residual**2).mean(), rel=1e-5) and len(first.val_loss_curve_) == 5
    )


@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_divergence_names_the_epoch_and_suggests_a_rate_that_works(diabetes, optimizer):
    X, y, _ = diabetes
    with pytest.raises(
        FloatingPointError, match=r"diverged in epoch \d+ at learning rate 5; try a learning rate of"
    ) as error:
        LinearRegression(lr=5.0, optimizer=optimizer).fit(X, y)
    suggested = float(str(error.value).split()[-1])
    assert LinearRegression(lr=suggested, optimizer=optimizer).fit(X, y).score(X, y) > 0.51


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
@pytest.mark.parametrize("case", ["outliers", "correlated", "one feature"])
def test_the_automatic_rate_is_safe(case, optimizer):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 50))
    if case == "outliers":
        X = rng.standard_t(2, size=(300, 10))
    elif case == "correlated":
        X = X * 0.05 + rng.normal(size=(300, 1))
    else:
        X = X[:, :1]
    y = X.sum(axis=1) + rng.normal(size=300)
    model = LinearRegression(optimizer=optimizer).fit(X, y)
    assert model.score(X, y) > 1 - ((y - X @ (c := least_squares(X, y))[0] - c[1]) ** 2).sum() / len(y) / y.var() - 1e-2


# scikit-learn's conventions


def test_parameters_are_read_changed_and_shown():
    model = LinearRegression(lr=0.1)
    assert model.get_params() == {
        "optimizer": "momentum", "lr": 0.1, "epochs": 2000, "batch_size": 32, "l2": 0.0, "tolerance": 1e-4,
        "val_fraction": 0.0, "fit_intercept": True, "seed": 0, "verbose": False,
    }  # fmt: skip
    assert model.set_params(l2=0.5, epochs=7) is model and model.l2 == 0.5 and model.epochs == 7
    assert repr(model) == "LinearRegression(lr=0.1, epochs=7, l2=0.5)"
    with pytest.raises(ValueError, match="no parameter 'rate'; it has optimizer, lr"):
        model.set_params(rate=1)


def test_fit_returns_the_model_with_plain_attributes(diabetes):
    X, y, _ = diabetes
    model = LinearRegression(epochs=2)
    assert model.fit(X, y) is model
    assert type(model.coef_) is np.ndarray and model.coef_.dtype == np.float64 and model.coef_.shape == (10,)
    assert type(model.intercept_) is float and model.n_features_in_ == 10
    assert model.n_iter_ == 2 and model.n_steps_ == 2 * 14 and len(model.loss_curve_) == 2


@pytest.mark.parametrize("call", [lambda m: m.predict([[1]]), lambda m: m.score([[1]], [1]), lambda m: m.save("x")])
def test_a_model_that_is_not_fitted_says_so(call):
    with pytest.raises(NotFittedError, match="not fitted yet; call fit"):
        call(LinearRegression())


def test_score_of_weighted_rows_and_of_one_row():
    rng = np.random.default_rng(0)
    X, weight = rng.normal(size=(40, 2)), rng.random(40)
    y = X @ [1.0, 2.0] + rng.normal(size=40)
    model = LinearRegression().fit(X, y)
    metrics = pytest.importorskip("sklearn.metrics")
    assert model.score(X, y, sample_weight=weight) == pytest.approx(
        metrics.r2_score(y, model.predict(X), sample_weight=weight)
    )
    with pytest.raises(ValueError, match="sample_weight"):
        model.score(X, y, weight[1:])
    with pytest.warns(DataWarning, match="two rows"):
        assert math.isnan(model.score(X[:1], y[:1]))


def test_targets_of_text_that_is_a_number():
    X = np.random.default_rng(0).normal(size=(40, 2))
    y = (X @ [1.0, 2.0]).astype(str)
    assert LinearRegression().fit(X, y).score(X, y.astype(float)) > 0.999
    with pytest.raises(ValueError, match="number"):
        LinearRegression().fit(X, ["x"] * 40)


def test_score_is_r2(diabetes):
    X, y, _ = diabetes
    model = LinearRegression(epochs=20).fit(X, y)
    residual = y - model.predict(X)
    assert model.score(X, y) == pytest.approx(1 - (residual**2).sum() / ((y - y.mean()) ** 2).sum())


def test_scikit_learn_can_clone_and_cross_validate(diabetes):
    base, selection = pytest.importorskip("sklearn.base"), pytest.importorskip("sklearn.model_selection")
    X, y, _ = diabetes
    model = LinearRegression(lr=0.02, epochs=30)
    assert base.clone(model).get_params() == model.get_params() and base.is_regressor(model)
    assert selection.cross_val_score(model, X, y, cv=3).mean() == pytest.approx(0.48, abs=0.02)


@pytest.mark.parametrize(
    "X, y, message",
    [
        ([1.0, 2.0], [1.0, 2.0], r"X must have shape \(rows, features\), not \(2,\); .* X.reshape"),
        (np.zeros((3, 2)), np.zeros(4), r"y must have shape \(3,\) or \(3, targets\), not \(4,\)"),
        (np.zeros((3, 2)), np.zeros((3, 1, 1)), r"y must have shape"),
        ([["a"]], [1.0], "X must be an array of numbers"),
        (np.zeros((2, 1)), ["a", "b"], "y must be an array of numbers"),
        (np.zeros((1, 1), dtype=complex), [1.0], "Complex data not supported: X is"),
        (np.zeros((0, 2)), np.zeros(0), "0 rows, 2 features"),
        (np.zeros((2, 0)), np.zeros(2), "2 rows, 0 features"),
        ([[1.0, 2.0], [3.0, np.nan]], [1.0, 2.0], "row 1, column 1: nan is not a finite number"),
        ([[1.0], [2.0]], [1.0, -np.inf], "row 1, column target: -inf is not a finite number"),
    ],
)
def test_data_that_cannot_be_used_are_refused(X, y, message):
    with pytest.raises(ValueError, match=message):
        LinearRegression().fit(X, y)


@pytest.mark.parametrize(
    "name, value",
    [
        ("optimizer", "lbfgs"), ("lr", 0.0), ("lr", np.nan), ("epochs", 0), ("epochs", 1.5), ("batch_size", 0),
        ("l2", -1.0), ("tolerance", -1.0), ("val_fraction", 1.0), ("seed", -1),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        LinearRegression(**{name: value}).fit([[1.0], [2.0]], [1.0, 2.0])


def test_prediction_checks_the_number_of_features(diabetes):
    model = LinearRegression(epochs=1).fit(diabetes.data, diabetes.target)
    with pytest.raises(ValueError, match="X has 3 features, but LinearRegression is expecting 10 features"):
        model.predict(np.zeros((5, 3)))


def test_ctrl_c_in_fit_stops_after_the_batch_and_keeps_what_was_learned(diabetes, monkeypatch, python_handles_ctrl_c):
    original = _linreg_train.make_step

    def make_step(*arguments):
        step, calls = original(*arguments), []

        def interrupted(x, y):
            calls.append(1)
            if len(calls) == 17:
                signal.raise_signal(signal.SIGINT)
            return step.__wrapped__(x, y)

        return fastgrad.compile(interrupted)

    monkeypatch.setattr(_linreg_train, "make_step", make_step)
    handler = signal.getsignal(signal.SIGINT)
    model = LinearRegression()
    with pytest.raises(KeyboardInterrupt), fastgrad.eager():  # every step runs in Python
        model.fit(diabetes.data, diabetes.target)
    assert model.n_steps_ == 17 and model.n_iter_ == 2 and model.score(diabetes.data, diabetes.target) > 0
    assert signal.getsignal(signal.SIGINT) is handler


# Batches, and tables larger than memory


@pytest.mark.parametrize("kind", [_linreg_data.MemoryBatches, _linreg_data.StreamBatches])
@pytest.mark.parametrize("batch", [1000, 4096, 200_000])
@pytest.mark.parametrize("val_fraction", [0.0, 0.3])
def test_an_epoch_is_every_training_row_once_in_whole_batches(kind, batch, val_fraction):
    n = 150_001
    X = np.arange(n, dtype=float)[:, None]
    rows = _linreg_data.Rows(X, 2 * X[:, 0], ["x"], val_fraction=val_fraction)
    stats = _linreg_data.moments(rows)
    batches = kind(rows, stats, batch, np.random.default_rng(0))
    for _ in range(2):
        blocks = list(batches.epoch())
        assert all(len(x) % batch == 0 and len(x) for x, _ in blocks[:-1])
        x = np.concatenate([x for x, _ in blocks])[:, 0]
        y = np.concatenate([y for _, y in blocks])
        order = np.rint(x * stats.x_scale + stats.x_mean).astype(int)
        held_out = np.concatenate([rows.validation(*span) for span in rows.spans()])
        assert np.array_equal(np.sort(order), np.flatnonzero(~held_out))
        assert np.allclose(x, y) and abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_streamed_moments_and_closed_form_equal_those_of_the_whole():
    X, y = problem(n=100_000, p=5)
    rows = _linreg_data.Rows(X, y, range(5))
    stats = _linreg_data.moments(rows)
    assert np.allclose(stats.x_mean, X.mean(axis=0), rtol=1e-12) and np.allclose(
        stats.x_scale, X.std(axis=0), rtol=1e-12
    )
    for l2 in (0.0, 0.7):
        for found, expected in zip(_linreg_data.closed_form(rows, stats, l2), least_squares(X, y, l2), strict=True):
            assert np.allclose(found, expected, rtol=1e-8)


def test_a_memory_map_is_streamed_and_never_read_whole(tmp_path):
    n, p = 1_000_000, 10
    table = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float64, (n, p + 1))
    rng = np.random.default_rng(0)
    for start in range(0, n, 100_000):
        X = rng.normal(size=(100_000, p))
        table[start : start + 100_000] = np.c_[X, X.sum(axis=1) + 0.1 * rng.normal(size=100_000)]
    table.flush()
    table = np.load(tmp_path / "big.npy", mmap_mode="r")
    LinearRegression(epochs=1).fit(table[:100, :-1], table[:100, -1])  # loads what is imported on first use
    tracemalloc.start()
    model = LinearRegression(epochs=1, batch_size=8192).fit(table[:, :-1], table[:, -1])
    predicted = model.predict(table[:1000, :-1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < table.nbytes / 3
    assert np.allclose(model.coef_, 1, atol=0.02) and np.corrcoef(predicted, table[:1000, -1])[0, 1] > 0.99


def test_a_memory_map_gives_the_same_split_and_loss_as_an_array(tmp_path, diabetes):
    np.save(tmp_path / "x.npy", diabetes.data)
    mapped = LinearRegression(val_fraction=0.2).fit(np.load(tmp_path / "x.npy", mmap_mode="r"), diabetes.target)
    loaded = LinearRegression(val_fraction=0.2).fit(diabetes.data, diabetes.target)
    assert mapped.loss_curve_[-1] == pytest.approx(loaded.loss_curve_[-1], rel=5e-5)


# Saving


def test_a_saved_model_predicts_the_same_bits(tmp_path, diabetes):
    X, y, names = diabetes
    model = LinearRegression(epochs=3, l2=0.5).fit(X, y)
    model.save(tmp_path / "m.safetensors", names, "progression")
    loaded = LinearRegression.load(tmp_path / "m.safetensors")
    assert np.array_equal(loaded.predict(X), model.predict(X)) and loaded.get_params() == model.get_params()
    assert loaded.feature_names_in_.tolist() == names and loaded.target_name_ == "progression"


def test_a_model_of_several_targets_can_be_saved(tmp_path):
    X, y = problem(targets=(2,))
    model = LinearRegression(epochs=3).fit(X, y)
    model.save(tmp_path / "m.safetensors")
    assert np.array_equal(LinearRegression.load(tmp_path / "m.safetensors").predict(X), model.predict(X))


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), _linreg_files.replacing(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_writing_follows_links_and_keeps_the_mode(tmp_path):
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    with _linreg_files.replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink() and path.read_text() == "new" and path.stat().st_mode & 0o777 == 0o640


# The command


def run(capsys, *arguments):
    """Exit status, standard output and standard error of the command."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def table(report):
    """The report's numbers by the name at the beginning of the line: [trained, closed form]."""
    lines = (line.rsplit(maxsplit=2) for line in report.splitlines())
    found = {}
    for name, *values in (line for line in lines if len(line) == 3):
        try:
            found[name.strip()] = [float(value) for value in values]
        except ValueError:
            continue
    return found


def write_csv(path, X, y, names=None, separator=","):
    names = names or [f"f{i}" for i in range(X.shape[1])]
    lines = [separator.join([*names, "y"]), *(separator.join(map(repr, row)) for row in np.c_[X, y].tolist())]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_without_arguments_it_trains_on_the_diabetes_study(capsys, diabetes):
    status, out, err = run(capsys)
    assert status == 0 and err == ""
    assert "Efron, Hastie, Johnstone, Tibshirani (2004)" in out and "354 for training, 88 for validation" in out
    numbers = table(out)
    for name in ("train MSE", "train R²", "validation MSE", "validation R²", *diabetes.feature_names, "intercept"):
        assert len(numbers[name]) == 2
    trained, exact = numbers["train MSE"]
    assert trained == pytest.approx(exact, rel=5e-5)
    held_out = _linreg_data.Rows(diabetes.data, diabetes.target, diabetes.feature_names, val_fraction=0.2).validation(
        0, 442
    )
    X, y = diabetes.data[~held_out], diabetes.target[~held_out]
    coef, intercept = least_squares(X, y)
    assert exact == pytest.approx(mse(X, y, coef, intercept), rel=1e-5)
    assert numbers["bmi"][1] == pytest.approx(coef[2], rel=1e-5) and numbers["intercept"][1] == pytest.approx(intercept)
    X, y = diabetes.data[held_out], diabetes.target[held_out]
    assert numbers["validation MSE"][1] == pytest.approx(mse(X, y, coef, intercept), rel=1e-5)
    assert numbers["validation R²"][1] == pytest.approx(1 - mse(X, y, coef, intercept) / y.var(), rel=1e-5)


def test_the_penalty_is_in_the_report_and_in_the_closed_form(capsys, diabetes):
    _, out, _ = run(capsys, "--l2", "0.2", "--val-fraction", "0")
    coef, _ = least_squares(diabetes.data, diabetes.target, l2=0.2)
    numbers = table(out)
    assert numbers["s5"][1] == pytest.approx(coef[8], rel=1e-5)
    assert numbers["loss"][0] == pytest.approx(numbers["loss"][1], rel=1e-4)
    assert "442 for training, 0 for validation" in out and "validation MSE" not in out


def test_a_closed_form_that_would_take_too_long_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(_linreg_data, "CLOSED_FORM_COLUMNS", 9)
    status, out, err = run(capsys, "--epochs", "1")
    assert (status, err) == (0, "") and "too large for the closed form" in out
    assert "train MSE" in out and "trained   closed form" not in out


def test_target_and_features_are_chosen_by_name(capsys, tmp_path):
    X, y = problem()
    path = write_csv(tmp_path / "t.csv", np.c_[X, y], np.zeros(len(X)), ["a", "b", "c", "d", "goal"])
    status, out, err = run(capsys, path, "--target", "goal", "--features", "d,a", "--val-fraction", "0")
    coef, intercept = least_squares(X[:, [3, 0]], y)
    numbers = table(out)
    assert status == 0 and err == "" and "goal, from 2 features" in out
    assert [numbers[name][1] for name in ("d", "a", "intercept")] == pytest.approx([*coef, intercept], rel=1e-4)
    assert numbers["train MSE"][0] == pytest.approx(numbers["train MSE"][1], rel=1e-4)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("prefix", ["", "\ufeff"])
def test_csv_dialects_are_understood(capsys, tmp_path, separator, prefix):
    X, y = problem(n=40, p=2)
    path = write_csv(tmp_path / "t.csv", X, y, separator=separator)
    lines = path.read_text().splitlines()
    lines = [
        f'"no{separator}te"{separator}' + lines[0],
        *(f'"a {separator} ü"{separator}' + line for line in lines[1:]),
        "",
    ]
    path.write_text(prefix + "\n\n".join(lines), encoding="utf-8")
    status, out, err = run(capsys, path, "--target", "y", "--features", "f0,f1", "--val-fraction", "0")
    assert (status, err) == (0, "") and "40 for training" in out
    assert table(out)["f1"][1] == pytest.approx(least_squares(X, y)[0][1], rel=1e-5)


def test_text_in_other_columns_does_not_matter_whatever_its_encoding(capsys, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"name,x,y\n" + b"".join(b"caf\xe9,%d,%d\n" % (i, i * i) for i in range(20)))
    status, _, err = run(capsys, path, "--target", "y", "--features", "x", "--epochs", "1")
    assert (status, err) == (0, "")


def test_npz_with_matrix_and_target(capsys, tmp_path):
    X, y = problem()
    np.savez(tmp_path / "t.npz", X=X, y=y, feature_names=["a", "b", "c", "d"])
    status, out, _ = run(capsys, tmp_path / "t.npz", "--val-fraction", "0")
    coef, _ = least_squares(X, y)
    assert status == 0 and [table(out)[name][1] for name in "abcd"] == pytest.approx(coef.tolist(), rel=1e-4)


def test_npz_with_an_array_for_each_column(capsys, tmp_path):
    X, y = problem(p=2)
    np.savez(tmp_path / "t.npz", a=X[:, 0], goal=y, b=X[:, 1].astype(np.float32))
    status, out, _ = run(capsys, tmp_path / "t.npz", "--target", "goal", "--val-fraction", "0")
    assert status == 0 and table(out)["a"][1] == pytest.approx(least_squares(X, y)[0][0], rel=1e-3)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("target", [None, "1", "-2"])
def test_npy_takes_columns_by_index(capsys, tmp_path, target, order):
    X, y = problem(p=2)
    matrix = np.c_[X, y] if target is None else np.c_[X[:, 0], y, X[:, 1]]
    np.save(tmp_path / "t.npy", np.asarray(matrix, order=order))
    status, out, err = run(
        capsys, tmp_path / "t.npy", "--val-fraction", "0", *([] if target is None else ["--target", target])
    )
    coef, _ = least_squares(X, y)
    names = ("0", "1") if target is None else ("0", "2")
    assert (status, err) == (0, "")
    assert [table(out)[name][1] for name in names] == pytest.approx(coef.tolist(), rel=1e-4)


# Bad input


def assert_refused(result, *parts):
    """Exit status 2 and one line that begins with the program and has all the parts."""
    status, out, err = result
    assert status == 2 and out == ""
    assert err.startswith("fastgrad-linreg: ") and err.count("\n") == 1 and "Traceback" not in err
    for part in parts:
        assert str(part) in err


GOOD = "a,b,y\n1,2,3\n4,5,6\n7,8,10\n"


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a,b,y\n1,2,3\n4,x7,6\n", "row 3, column b: 'x7' is not a number"),
        ("a,b,y\n1,2,3\n4,,6\n", "row 3, column b: empty cell"),
        ("a,b,y\n1,2,3\n4, ,6\n", "row 3, column b: empty cell"),
        ("a,b,y\n1,2,3\n4,5\n", "row 3, column y: missing cell"),
        ("a,b,y\n1,2,3\n\n4,5,6,7\n", "row 4, column 4: the header has only 3"),
        ("a,b,y\n1,2,3\n4,nan,6\n", "row 3, column b: nan is not a finite number"),
        ("a,b,y\n1,2,3\n4,5,-inf\n", "row 3, column y: -inf is not a finite number"),
        ("a,b,y\n1,2,3\n4,1e999,6\n", "row 3, column b: 1e999 is not a finite number"),
        ("a,b,y\n1,2,3\n4,1_0,6\n", "row 3, column b: '1_0' is not a number"),
        ('note,b,y\n1,2,3\n"4\n5",x,6\n', "row 3, column note: '4\\n5' is not a number"),
        ("a;b;y\n1;2,5;3\n", "row 2, column b: '2,5' is not a number"),
        ("a,a,y\n1,2,3\n", "row 1, column 2: the name 'a' is taken"),
        ("a,b,y\n", "no rows"),
        ("", "no header row"),
    ],
)
def test_a_bad_cell_is_named_by_file_row_and_column(capsys, tmp_path, text, problem):
    path = tmp_path / "t.csv"
    path.write_text(text)
    assert_refused(run(capsys, path, "--target", "y"), f"{path}: {problem}")


def test_a_cell_that_is_not_utf8_is_named(capsys, tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,y\n1,2\ncaf\xe9,3\n")
    assert_refused(run(capsys, path, "--target", "y"), f"{path}: row 3, column a: ")


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--target", "z"], "no column named 'z'; the columns are a, b, y"),
        ([], "which column is the target? --target is one of a, b, y"),
        (["--target", "y", "--features", "a,q"], "no column named 'q'"),
        (["--target", "y", "--features", "a,y"], "column 'y' is the target and can't be a feature too"),
        (["--target", "y", "--features", "a,a"], "feature 'a' is given twice"),
    ],
)
def test_a_missing_column_is_named(capsys, tmp_path, arguments, problem):
    path = tmp_path / "t.csv"
    path.write_text(GOOD)
    assert_refused(run(capsys, path, *arguments), f"{path}: ", problem)


def test_a_missing_file_and_a_directory_are_named(capsys, tmp_path):
    assert_refused(run(capsys, tmp_path / "none.csv"), f"{tmp_path / 'none.csv'}: No such file or directory")
    assert_refused(run(capsys, tmp_path), f"{tmp_path}: Is a directory")


def arrays(path, **named):
    np.savez(path, **named)
    return path


@pytest.mark.parametrize(
    "write, problem",
    [
        (lambda path: path.write_bytes(bytes(range(128, 256))), "neither CSV in UTF-8, nor NPZ, nor NPY"),
        (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"), ""),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), ""),
        (lambda path: np.save(path, np.zeros(5)), "an array of shape (5,) and type float64, not a matrix of numbers"),
        (lambda path: np.save(path, np.array([["a"]])), "not a matrix of numbers"),
        (lambda path: np.save(path, np.array([[None]])), ""),
        (lambda path: np.save(path, np.zeros((0, 3))), ""),
        (lambda path: np.save(path, np.zeros((3, 1))), "no column is left for the features"),
        (lambda path: np.save(path, np.array([[1, 2], [3, np.nan]])), "row 1, column 1: nan is not a finite number"),
        (lambda path: np.save(path, np.array([[1, 2], [-np.inf, 2]])), "row 1, column 0: -inf is not a finite number"),
    ],
)
def test_npy_files_that_cannot_be_used_are_refused(capsys, tmp_path, write, problem):
    path = tmp_path / "t.npy"
    write(path)
    assert_refused(run(capsys, path), f"{path}: ", problem)


def test_a_truncated_npy_file_is_refused(capsys, tmp_path):
    path = tmp_path / "t.npy"
    np.save(path, np.zeros((1000, 3)))
    path.write_bytes(path.read_bytes()[:5000])
    assert_refused(run(capsys, path), f"{path}: ")


@pytest.mark.parametrize(
    "named, problem",
    [
        ({"X": np.zeros(3), "y": np.zeros(3)}, "X is an array of shape (3,)"),
        (
            {"X": np.zeros((3, 2)), "y": np.zeros(4)},
            "column y is an array of shape (4,) and type float64, not 3 numbers",
        ),
        ({"X": np.zeros((3, 2)), "y": np.zeros(3), "feature_names": ["a"]}, "1 feature_names for an X with 2 columns"),
        ({"X": np.array([[1, np.nan]]), "y": np.zeros(1)}, "row 0, column 1: nan is not a finite number"),
        ({"a": np.zeros(3), "y": np.array(["1", "2", "3"])}, "column y is an array"),
        ({"a": np.zeros(3), "y": np.array([None, 1, 2])}, "t.npz"),
        ({}, "no arrays"),
    ],
)
def test_npz_files_that_cannot_be_used_are_refused(capsys, tmp_path, named, problem):
    path = arrays(tmp_path / "t.npz", **named)
    assert_refused(run(capsys, path, "--target", "y"), f"{path}: ", problem)


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["--epochs", "0"], "argument --epochs: '0' is not a positive whole number"),
        (["--batch-size", "ten"], "--batch-size: 'ten' is not a positive whole number"),
        (["--lr", "-1"], "--lr: '-1' is not a positive number"),
        (["--lr", "nan"], "--lr: 'nan' is not a positive number"),
        (["--optimizer", "lbfgs"], "--optimizer: invalid choice"),
        (["--l2", "-1"], "--l2: '-1' is not a number from 0"),
        (["--val-fraction", "1"], "--val-fraction: '1' is not a number from 0 to less than 1"),
        (["--tolerance", "inf"], "--tolerance: 'inf' is not a number from 0"),
        (["--seed", "1.5"], "--seed: '1.5' is not a whole number from 0"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
        (["predict"], "the following arguments are required: MODEL, FILE"),
    ],
)
def test_wrong_options_are_one_line(capsys, arguments, problem):
    assert_refused(run(capsys, *arguments), problem)


def test_a_constant_column_is_a_warning_and_works(capsys, tmp_path):
    X, y = problem(n=100, p=2)
    path = write_csv(tmp_path / "t.csv", np.c_[X, np.full(100, 3.3)], y)
    status, out, err = run(capsys, path, "--target", "y", "--val-fraction", "0")
    assert status == 0
    assert err == f"fastgrad-linreg: {path}: warning: column f2 never varies; its coefficient is 0\n"
    numbers = table(out)
    assert numbers["f2"] == [0, 0] and numbers["f0"][1] == pytest.approx(least_squares(X, y)[0][0], rel=1e-5)


def test_fewer_rows_than_columns_is_a_warning_and_works(capsys, tmp_path):
    rng = np.random.default_rng(0)
    path = write_csv(tmp_path / "t.csv", rng.normal(size=(6, 12)), rng.normal(size=6))
    status, out, err = run(capsys, path, "--target", "y", "--val-fraction", "0")
    assert status == 0 and err.count("\n") == 1
    assert f"{path}: warning: 6 training rows don't determine 12 coefficients" in err
    trained, exact = table(out)["train R²"]
    assert trained > 0.999 and exact == pytest.approx(1)


def test_divergence_names_the_file_the_epoch_and_a_learning_rate(capsys):
    result = run(capsys, "--lr", "10")
    assert_refused(result, "diabetes.csv: the loss diverged in epoch 1 at learning rate 10; try a learning rate of 0.0")


@pytest.mark.parametrize("option", ["--save", "--plot"])
def test_an_output_that_cannot_be_written_is_said_before_training(capsys, tmp_path, option, monkeypatch):
    monkeypatch.setattr(LinearRegression, "fit_rows", lambda *arguments: pytest.fail("trained"))
    path = tmp_path / "none" / "out.png"
    assert_refused(run(capsys, option, path), f"{path}: can't be written: No such file or directory")
    assert_refused(run(capsys, option, tmp_path), f"{tmp_path}: can't be written: is a directory")
    source = tmp_path / "t.csv"
    source.write_text(GOOD)
    assert_refused(run(capsys, source, "--target", "y", option, source), f"{source}: is an input")
    assert source.read_text() == GOOD


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_an_output_in_a_read_only_directory_is_said_before_training(capsys, tmp_path):
    tmp_path.chmod(0o500)
    assert_refused(run(capsys, "--save", tmp_path / "m"), f"{tmp_path / 'm'}: can't be written: Permission denied")


def test_an_output_that_fails_at_the_end_does_not_cost_the_report(capsys, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(LinearRegression, "save", full)
    status, out, err = run(capsys, "--epochs", "1", "--save", tmp_path / "m")
    assert status == 2 and "train MSE" in out and "model " not in out
    assert err == f"fastgrad-linreg: {tmp_path / 'm'}: can't be written: No space left on device\n"


# Plots


def test_the_plot_is_drawn(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    status, _, err = run(capsys, "--epochs", "3", "--plot", tmp_path / "loss.png")
    assert (status, err) == (0, "") and (tmp_path / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert list(tmp_path.iterdir()) == [tmp_path / "loss.png"]


def test_a_plot_in_an_unknown_format_is_refused_before_training(capsys, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(LinearRegression, "fit_rows", lambda *arguments: pytest.fail("trained"))
    assert_refused(run(capsys, "--plot", tmp_path / "loss.xyz"), "loss.xyz: can't draw this format; use one of ", "png")


def test_without_matplotlib_the_plot_says_what_to_install(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    result = run(capsys, "--plot", tmp_path / "loss.png")
    assert_refused(result, '--plot needs matplotlib: pip install "fastgrad[plot]"')


# Prediction


@pytest.fixture
def saved(capsys, tmp_path):
    """A model of the diabetes study in a file."""
    assert run(capsys, "--epochs", "3", "--features", "bmi,age", "--save", tmp_path / "m.safetensors")[0] == 0
    return tmp_path / "m.safetensors"


def test_predictions_are_written_in_full_precision(capsys, tmp_path, saved, diabetes):
    status, out, err = run(capsys, "predict", saved, DIABETES_CSV, "--output", tmp_path / "out.csv")
    assert (status, out, err) == (0, "", "")
    header, *lines = (tmp_path / "out.csv").read_text().splitlines()
    expected = LinearRegression.load(saved).predict(diabetes.data[:, [2, 0]])
    assert header == "prediction" and [float(line) for line in lines] == pytest.approx(expected.tolist(), rel=1e-14)


def test_predictions_go_to_standard_output_by_default(capsys, tmp_path, saved, diabetes):
    np.savez(tmp_path / "new.npz", X=diabetes.data[:3], feature_names=diabetes.feature_names)
    status, out, _ = run(capsys, "predict", saved, tmp_path / "new.npz")
    expected = LinearRegression.load(saved).predict(diabetes.data[:3, [2, 0]])
    header, *lines = out.splitlines()
    assert status == 0 and header == "prediction"
    assert [float(line) for line in lines] == pytest.approx(expected.tolist(), rel=1e-14)


def test_a_model_of_an_npy_file_predicts_from_one(capsys, tmp_path, diabetes):
    np.save(tmp_path / "t.npy", np.c_[diabetes.data, diabetes.target])
    assert run(capsys, tmp_path / "t.npy", "--epochs", "1", "--save", tmp_path / "m")[0] == 0
    np.save(tmp_path / "new.npy", diabetes.data[:7].astype(np.float32))
    status, out, _ = run(capsys, "predict", tmp_path / "m", tmp_path / "new.npy")
    assert status == 0 and len(out.splitlines()) == 8


@pytest.mark.parametrize(
    "text, problem",
    [
        ("age,s1\n1,2\n", "no column named 'bmi'; the columns are age, s1"),
        ("age,bmi\n50,25\n51,\n", "row 3, column bmi: empty cell"),
        ("age,bmi\n50,25\ninf,30\n", "row 3, column age: inf is not a finite number"),
        ("age,bmi\n", "no rows"),
    ],
)
def test_prediction_names_bad_input_and_writes_nothing(capsys, tmp_path, saved, text, problem):
    path, output = tmp_path / "new.csv", tmp_path / "out.csv"
    path.write_text(text)
    assert_refused(run(capsys, "predict", saved, path, "--output", output), f"{path}: {problem}")
    assert not output.exists()


def test_prediction_refuses_what_is_not_a_model(capsys, tmp_path, saved):
    from safetensors.numpy import save_file

    assert_refused(run(capsys, "predict", tmp_path / "none", DIABETES_CSV), f"{tmp_path / 'none'}: No such file")
    assert_refused(run(capsys, "predict", DIABETES_CSV, DIABETES_CSV), f"{DIABETES_CSV}: not a safetensors file")
    save_file({"w": np.zeros(3)}, tmp_path / "other")
    assert_refused(run(capsys, "predict", tmp_path / "other", DIABETES_CSV), "other: not a model of fastgrad.linreg")
    output = tmp_path / "none" / "out.csv"
    assert_refused(run(capsys, "predict", saved, DIABETES_CSV, "--output", output), f"{output}: can't be written")
    assert_refused(run(capsys, "predict", saved, DIABETES_CSV, "--output", saved), f"{saved}: is an input")


# As a process


def command(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastgrad.linreg", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, **options,
    )  # fmt: skip


def test_the_module_is_a_command(tmp_path):
    done = command("--epochs", "2", "--save", tmp_path / "m")
    assert done.returncode == 0 and done.stderr == "" and "train MSE" in done.stdout
    done = command(tmp_path / "none.csv")
    assert (
        done.returncode == 2 and done.stderr == f"fastgrad-linreg: {tmp_path / 'none.csv'}: No such file or directory\n"
    )
    done = command("--help")
    assert done.returncode == 0 and "--batch-size" in done.stdout and "predict MODEL FILE" in done.stdout


def test_a_reader_that_stops_early_is_not_an_error():
    program = "from fastgrad.linreg import main; raise SystemExit(main(['--epochs', '1']))"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        complaint = process.stderr.read()
    assert (process.returncode, complaint) == (0, b"")


def test_only_a_plot_loads_matplotlib():
    program = (
        "import sys; from fastgrad.linreg import main; main(['--epochs', '1']); print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("False\n")


def test_ctrl_c_saves_what_was_asked_for_and_reports(tmp_path):
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500_000, 3))
    np.save(tmp_path / "t.npy", np.c_[X, X.sum(axis=1) + rng.normal(size=len(X))])
    options = ["--batch-size", "1", "--optimizer", "sgd", "--lr", "0.001", "--save", str(tmp_path / "m")]
    program = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        f"from fastgrad.linreg import main; raise SystemExit(main([{str(tmp_path / 't.npy')!r}, *{options!r}]))"
    )
    terminal, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        shown = b""
        while b"loss" not in shown and process.poll() is None and select.select([terminal], [], [], 60)[0]:
            shown += os.read(terminal, 1000)
        process.send_signal(signal.SIGINT)
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            os.close(terminal)
    assert process.returncode == 130
    assert "interrupted after" in out and "train MSE" in out
    assert LinearRegression.load(tmp_path / "m").coef_ == pytest.approx([1, 1, 1], abs=0.3)


def test_ctrl_c_before_training_is_one_line(capsys, monkeypatch):
    def interrupt(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(_linreg_cli, "open_table", interrupt)
    assert run(capsys) == (130, "", "fastgrad-linreg: interrupted\n")


def test_warnings_of_others_are_left_alone(capsys, monkeypatch):
    def warn(*arguments):
        warnings.warn("something else", DeprecationWarning, stacklevel=2)

    monkeypatch.setattr(_linreg_data.Rows, "check", warn)
    with pytest.raises(DeprecationWarning), _linreg_cli.one_line("file"):
        _linreg_data.Rows(np.zeros((1, 1)), None, ["x"]).check()
