"""The command `fastgrad-linreg`: train on a table and report, or predict with a saved model.

Standard output is the report (or the predictions); progress, warnings and errors are lines on standard error. Exit
status: 0, 2 for anything wrong with the command or its input, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import numpy as np

from ._linreg_data import Errors, Linear, Moments, Rows, closed_form, evaluate
from ._linreg_files import InputError, check_writable, open_table, reason, replacing
from ._linreg_train import OPTIMIZERS
from .data import DIABETES_CSV, DIABETES_SOURCE
from .linreg import DataWarning, LinearRegression

PROGRAM = "fastgrad-linreg"
PLOT_EXTRA = 'pip install "fastgrad[plot]"'


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see --help)")


def number(convert: Callable[[str], Any], test: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """A type for argparse: a number that passes `test`."""

    def parse(text: str) -> Any:
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not test(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
        return value

    return parse


count = number(int, lambda n: n >= 1, "a positive whole number")
natural = number(int, lambda n: n >= 0, "a whole number from 0")
positive = number(float, lambda x: 0 < x < math.inf, "a positive number")
non_negative = number(float, lambda x: 0 <= x < math.inf, "a number from 0")
fraction = number(float, lambda x: 0 <= x < 1, "a number from 0 to less than 1")


def training_parser() -> argparse.ArgumentParser:
    default = LinearRegression().get_params()
    parser = Parser(
        prog=PROGRAM,
        description="Train a linear regression by mini-batches and compare it with the closed-form solution.",
        epilog=f"To predict with a saved model: {PROGRAM} predict MODEL FILE [--output OUT.csv]",
        allow_abbrev=False,
    )
    add = parser.add_argument
    file_help = (
        "CSV with a header row, NPZ (X, y, feature_names; or an array a column), or NPY (a matrix, mapped to memory); "
        "without it, the diabetes study of Efron et al. (2004)"
    )
    tolerance_help = "relative fall of the loss that is progress; without it the rate is halved (%(default)s)"
    add("file", metavar="FILE", nargs="?", help=file_help)
    add("--target", metavar="NAME", help="column to predict (NPY: its index, by default the last)")
    add(
        "--features",
        metavar="A,B,C",
        type=lambda text: text.split(","),
        help="columns to predict from (default: all others)",
    )
    add("--epochs", type=count, default=default["epochs"], help="at most so many passes over the data (%(default)s)")
    add("--batch-size", type=count, default=default["batch_size"], help="rows a step (%(default)s)")
    add("--lr", type=positive, help="learning rate on standardised data (default: one that is safe for the data)")
    add("--optimizer", choices=OPTIMIZERS, default=default["optimizer"], help="(%(default)s)")
    add("--l2", type=non_negative, default=default["l2"], help="weight of the ridge penalty (%(default)s)")
    add("--val-fraction", type=fraction, default=0.2, help="share of the rows kept for validation (%(default)s)")
    add("--seed", type=natural, default=default["seed"], help="of the split and the order of the rows (%(default)s)")
    add("--tolerance", type=non_negative, default=default["tolerance"], help=tolerance_help)
    add("--save", metavar="MODEL.safetensors", help="write the trained model")
    add("--plot", metavar="LOSS.png", help=f"draw the loss by epoch (needs matplotlib: {PLOT_EXTRA})")
    return parser


def prediction_parser() -> argparse.ArgumentParser:
    parser = Parser(prog=f"{PROGRAM} predict", description="Predict with a saved model.", allow_abbrev=False)
    parser.add_argument("model", metavar="MODEL", help="written by --save")
    parser.add_argument("file", metavar="FILE", help="CSV, NPZ or NPY with the columns that the model was trained on")
    parser.add_argument("--output", metavar="OUT.csv", help="where the predictions go (default: standard output)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    argv = sys.argv[1:] if argv is None else list(argv)
    try:
        if argv[:1] == ["predict"]:
            return predict(prediction_parser().parse_args(argv[1:]))
        return train(training_parser().parse_args(argv))
    except InputError as error:
        return failed(error)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def failed(error: InputError) -> int:
    print(f"{PROGRAM}: {error}", file=sys.stderr)
    return 2


@contextmanager
def one_line(file: str) -> Any:
    """Turn what the library raises and warns about data into lines that name the file."""

    def show(message: Warning | str, *rest: object, **more: object) -> None:
        print(f"{PROGRAM}: {file}: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", DataWarning)
        usual, warnings.showwarning = warnings.showwarning, show
        try:
            yield
        except (ValueError, FloatingPointError) as error:
            raise InputError(f"{file}: {reason(error)}") from None
        finally:
            warnings.showwarning = usual


def train(args: argparse.Namespace) -> int:
    inputs = [args.file] if args.file else []
    for path in filter(None, (args.save, args.plot)):
        check_writable(path, inputs)
    if args.save and args.plot and os.path.realpath(args.save) == os.path.realpath(args.plot):
        raise InputError(f"{args.plot}: is given for both --save and --plot")
    figure = prepare_plot(args.plot) if args.plot else None

    if args.file:
        file, source = args.file, args.file
        rows = open_table(file).rows(args.features, args.target)
    else:
        file, source = DIABETES_CSV.name, DIABETES_SOURCE
        rows = open_table(DIABETES_CSV).rows(args.features, args.target or "target")
    parameters = {name: value for name, value in vars(args).items() if name in LinearRegression().get_params()}
    model = LinearRegression(**parameters, verbose=True)
    with one_line(file):
        stats = model.fit_rows(rows)

    trouble: list[InputError] = []
    with later(trouble, args.save):
        if args.save:
            model.save(args.save, rows.names, rows.target)
    exact = closed_form(rows, stats, args.l2)
    models: list[Linear] = [(model.coef_, np.asarray(model.intercept_)), *([exact] if exact else [])]
    errors = evaluate(rows, stats, models)
    with later(trouble, args.plot):
        if figure is not None:
            draw(figure, args.plot, model, errors[1:])
    report(source, rows, stats, model, models, errors)
    for path, name in ((args.save, "model"), (args.plot, "plot")):
        if path and not any(str(error).startswith(path) for error in trouble):
            print(f"{name:<12}{path}")
    sys.stdout.flush()
    for error in trouble:
        failed(error)
    return 130 if model.interrupted_ else 2 if trouble else 0


@contextmanager
def later(trouble: list[InputError], path: str) -> Any:
    """Keep an error of writing `path` for after the report."""
    try:
        yield
    except OSError as error:
        trouble.append(InputError(f"{path}: can't be written: {reason(error)}"))


def report(
    source: str, rows: Rows, stats: Moments, model: LinearRegression, models: Sequence[Linear], errors: Sequence[Errors]
) -> None:
    """Print what was trained on what, the errors, and the coefficients beside those of the closed form."""
    how = "converged" if model.converged_ else "interrupted" if model.interrupted_ else "stopped"
    penalty = f", l2 {model.l2:g}" if model.l2 else ""
    print(f"data        {source}")
    print(f"rows        {stats.train.n:,} for training, {stats.val.n:,} for validation (seed {model.seed})")
    print(f"target      {rows.target}, from {rows.features} feature{'s' * (rows.features != 1)}")
    print(f"optimizer   {model.optimizer}, learning rate {model.lr_:.3g}, batch {model.batch_size}{penalty}")
    epochs = f"{model.n_iter_:,} epoch{'s' * (model.n_iter_ != 1)}, {model.n_steps_:,} steps"
    seconds = f"{model.fit_seconds_:.3f} s, and {model.first_step_seconds_:.3f} s for the first step"
    print(f"training    {how} after {epochs}: {seconds}")
    print()
    table: list[tuple[str, list[float]]] = [
        ("train MSE", [e.train_mse for e in errors]),
        ("train R²", [e.train_r2 for e in errors]),
    ]
    if model.l2:
        losses = [e.train_mse + model.l2 * stats.penalty(coef) for e, (coef, _) in zip(errors, models, strict=True)]
        table.insert(0, ("loss", losses))
    if stats.val.n:
        table += [("validation MSE", [e.val_mse for e in errors]), ("validation R²", [e.val_r2 for e in errors])]
    coefficients = [
        *((name, [float(coef[i]) for coef, _ in models]) for i, name in enumerate(rows.names)),
        ("intercept", [float(intercept) for _, intercept in models]),
    ]
    width = max(14, *(len(name) for name, _ in coefficients)) + 2
    heading = f"{'trained':>14}" + (f"{'closed form':>14}" if len(models) > 1 else "")
    for title, lines in (("", table), ("coefficient", coefficients)):
        print(f"{title:<{width}}{heading}")
        for name, values in lines:
            print(f"{name:<{width}}" + "".join(f"{value:>14.6g}" for value in values))
        print()
    if len(models) == 1:
        print("(too large for the closed form)\n")


def prepare_plot(path: str) -> Any:
    """An empty figure of a format that `path` names; raises InputError without matplotlib or for an unknown format."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(f"--plot needs matplotlib: {PLOT_EXTRA}") from None
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    formats = FigureCanvasAgg(figure).get_supported_filetypes()
    if plot_format(path) not in formats:
        raise InputError(f"{path}: can't draw this format; use one of {', '.join(sorted(formats))}")
    return figure


def plot_format(path: str) -> str:
    return os.path.splitext(path)[1][1:].lower() or "png"


def draw(figure: Any, path: str, model: LinearRegression, exact: Sequence[Errors]) -> None:
    axes = figure.add_subplot()
    epochs = np.arange(1, len(model.loss_curve_) + 1)
    axes.plot(epochs, model.loss_curve_, label="training")
    if model.val_loss_curve_:
        axes.plot(epochs, model.val_loss_curve_, label="validation")
    for errors in exact:
        axes.axhline(errors.train_mse, color="black", linestyle=":", label="closed form, training")
    axes.set(xlabel="epoch", ylabel="mean squared error", xscale="log" if len(epochs) > 1 else "linear")
    axes.legend()
    image = io.BytesIO()
    figure.savefig(image, format=plot_format(path))
    with replacing(path) as file:
        file.write(image.getvalue())


def predict(args: argparse.Namespace) -> int:
    if args.output:
        check_writable(args.output, [args.model, args.file])
    try:
        model = LinearRegression.load(args.model)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{args.model}: {reason(error)}") from None
    if model.coef_.ndim != 1:
        raise InputError(f"{args.model}: predicts {len(model.coef_)} targets; use LinearRegression.load in Python")
    rows = open_table(args.file).inputs(
        list(getattr(model, "feature_names_in_", map(str, range(model.n_features_in_))))
    )
    with one_line(args.file):
        rows.check()
    if args.output is None:
        for text in predictions(model, rows):
            sys.stdout.write(text)
        sys.stdout.flush()
        return 0
    try:
        with replacing(args.output) as file:
            for text in predictions(model, rows):
                file.write(text.encode())
    except OSError as error:
        raise InputError(f"{args.output}: can't be written: {reason(error)}") from None
    return 0


def predictions(model: LinearRegression, rows: Rows) -> Any:
    """The lines of the output, a piece at a time; numbers are written so that reading them gives the same bits."""
    yield "prediction\n"
    for start, stop in rows.spans():
        values = model.predict_rows(rows.read(start, stop)[0]).tolist()
        yield "".join(f"{value!r}\n" for value in values)
