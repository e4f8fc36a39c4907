"""What the trainer's estimator takes and refuses, beside scikit-learn's: columns of every type, names, shapes, bad numbers."""

from __future__ import annotations

import pickle
import random
import subprocess
import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from fastgrad.linreg import DataWarning, LinearRegression, NotFittedError

pd = pytest.importorskip("pandas")
sklearn = pytest.importorskip("sklearn")
linear_model = pytest.importorskip("sklearn.linear_model")
sparse = pytest.importorskip("scipy.sparse")

ROWS = 12
RNG = np.random.default_rng(0)
NUMBERS = RNG.normal(size=(ROWS, 3))
WHOLE = RNG.integers(-3, 4, ROWS)


KINDS = (ValueError, TypeError)


def quick() -> LinearRegression:
    return LinearRegression(epochs=1)


def outcome(make: Callable[[], Any], action: Callable[[Any], Any]) -> tuple[str, list[str]]:
    """The kind of exception, or "", and the warnings that are not about the data's shape."""
    model = make()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DataWarning)
        try:
            action(model)
        except Exception as error:
            return next(k.__name__ for k in (*KINDS, type(error)) if isinstance(error, k)), []
    ours = [str(w.message) for w in caught if w.category is UserWarning]
    return "", ours


COLUMNS: dict[str, Any] = {
    "floats": NUMBERS[:, 0],
    "float16": NUMBERS[:, 0].astype(np.float16),
    "long double": NUMBERS[:, 0].astype(np.longdouble),
    "integers": WHOLE,
    "unsigned": (WHOLE + 3).astype(np.uint8),
    "truths": WHOLE > 0,
    "objects": WHOLE.astype(object),
    "truths as objects": (WHOLE > 0).astype(object),
    "fractions": np.array([Fraction(int(n), 7) for n in WHOLE], dtype=object),
    "decimals": np.array([Decimal(int(n)) / 8 for n in WHOLE], dtype=object),
    "numbers as text": np.array([str(n) for n in WHOLE], dtype=object),
    "text": np.array(["a", "b"] * (ROWS // 2), dtype=object),
    "None": np.array([None, *WHOLE[1:]], dtype=object),
    "lists": pd.Series([[1, 2]] * ROWS, dtype=object),
    "complex": NUMBERS[:, 0] + 1j,
    "Int64": pd.array(WHOLE, dtype="Int64"),
    "UInt8": pd.array(WHOLE + 3, dtype="UInt8"),
    "Float32": pd.array(NUMBERS[:, 1], dtype="Float32"),
    "boolean": pd.array(WHOLE > 0, dtype="boolean"),
    "Int64 with NA": pd.array([pd.NA, *WHOLE[1:]], dtype="Int64"),
    "Float64 with NA": pd.array([pd.NA, *NUMBERS[1:, 0]], dtype="Float64"),
    "boolean with NA": pd.array([pd.NA, *(WHOLE[1:] > 0)], dtype="boolean"),
    "NA as an object": np.array([pd.NA, *WHOLE[1:]], dtype=object),
    "NaN": np.array([np.nan, *NUMBERS[1:, 0]]),
    "infinity": np.array([np.inf, *NUMBERS[1:, 0]]),
    "categories of text": pd.Categorical(["a", "b"] * (ROWS // 2)),
    "categories of numbers": pd.Categorical(WHOLE),
    "dates": pd.date_range("2020-01-01", periods=ROWS),
    "dates with a zone": pd.date_range("2020-01-01", periods=ROWS, tz="UTC"),
    "durations": pd.to_timedelta(np.arange(ROWS), unit="s"),
    "periods": pd.period_range("2020-01", periods=ROWS, freq="M"),
}
TARGET = 2 * NUMBERS[:, 0] - WHOLE + 1


def frame(*kinds: str) -> Any:
    return pd.DataFrame({f"c{i}": COLUMNS[kind] for i, kind in enumerate(kinds)})


TABLES = [(kind,) for kind in COLUMNS] + [
    tuple(random.Random(seed).choices(list(COLUMNS), k=random.Random(seed).randint(2, 4))) for seed in range(60)
]


@pytest.mark.parametrize("kinds", TABLES, ids=", ".join)
def test_columns_are_taken_or_refused_as_scikit_learn_does(kinds: tuple[str, ...]) -> None:
    X = frame(*kinds)
    theirs, _ = outcome(linear_model.LinearRegression, lambda m: m.fit(X, TARGET))
    if set(kinds) <= {"dates", "durations"}:  # there, taken as nanoseconds
        assert theirs == ""
        theirs = "TypeError"
    ours, _ = outcome(quick, lambda m: m.fit(X, TARGET))
    assert ours == theirs
    fitted = quick().fit(NUMBERS[:, : len(kinds)] if len(kinds) < 4 else np.c_[NUMBERS, WHOLE], TARGET)
    predicted, _ = outcome(lambda: fitted, lambda m: m.predict(X))
    assert predicted == ours


TAKEN = [kind for kind in COLUMNS if outcome(quick, lambda m, kind=kind: m.fit(frame(kind), TARGET))[0] == ""]


@pytest.mark.parametrize("seed", range(30))
def test_values_are_those_that_scikit_learn_reads(seed: int) -> None:
    assert len(TAKEN) > 12
    choice = random.Random(seed)
    kinds = choice.choices(TAKEN, k=choice.randint(1, 4))
    expected = sklearn.utils.check_array(frame(*kinds), dtype=np.float64)
    coefficients = np.arange(1.0, 1 + len(kinds))
    model = quick().fit(expected, TARGET)
    model.coef_, model.intercept_ = coefficients, 0.5
    model.feature_names_in_ = np.array([f"c{i}" for i in range(len(kinds))], dtype=object)
    np.testing.assert_allclose(model.predict(frame(*kinds)), expected @ coefficients + 0.5, rtol=1e-12)


@pytest.mark.parametrize("kind", TAKEN)
def test_coefficients_are_those_of_scikit_learn(kind: str) -> None:
    X = pd.DataFrame({"a": COLUMNS[kind], "b": NUMBERS[:, 2]})
    expected = linear_model.LinearRegression().fit(X, TARGET)
    model = LinearRegression(batch_size=4).fit(X, TARGET)
    np.testing.assert_allclose(model.coef_, expected.coef_, rtol=5e-2, atol=5e-2)
    np.testing.assert_allclose(model.predict(X), expected.predict(X), rtol=5e-2, atol=5e-2)
    assert model.feature_names_in_.tolist() == ["a", "b"] and model.n_features_in_ == 2


ARRAYS: dict[str, Any] = {
    "a list of lists": NUMBERS.tolist(),
    "a list of rows of other lengths": [[1.0, 2.0, 3.0]] * (ROWS - 1) + [[1.0]],
    "None in a list": [[None, 2.0, 3.0]] * ROWS,
    "text in a list": [["1", "2", "3"]] * ROWS,
    "bytes": np.array([[b"1", b"2", b"3"]] * ROWS),
    "text that is no number": np.array([["a", 1, 2]] * ROWS, dtype=object),
    "one dimension": NUMBERS[:, 0],
    "a series": pd.Series(NUMBERS[:, 0]),
    "a scalar": 3.0,
    "three dimensions": NUMBERS[:, :, None],
    "no rows": NUMBERS[:0],
    "no columns": NUMBERS[:, :0],
    "a frame without columns": pd.DataFrame(index=range(ROWS)),
    "complex": NUMBERS + 0j,
    "complex objects": (NUMBERS + 1j).astype(object),
    "half": NUMBERS.astype(np.float16),
    "long double": NUMBERS.astype(np.longdouble),
    "truths": NUMBERS > 0,
    "objects": NUMBERS.astype(object),
    "foreign byte order": NUMBERS.astype(">f8"),
    "strides": np.repeat(NUMBERS, 2, axis=0)[::-2],
    "read-only": np.broadcast_to(NUMBERS[:1], (ROWS, 3)),
    "a masked array": np.ma.array(NUMBERS, mask=NUMBERS > 1),
    "dates": np.full((ROWS, 3), "2020-01-01", dtype="M8[s]").astype(object),
    "NaN": np.where(NUMBERS > 1, np.nan, NUMBERS),
    "infinity": np.where(NUMBERS > 1, -np.inf, NUMBERS),
    "a dict": {"a": [1.0]},
    "None": None,
    "text": "text",
    "more rows": np.r_[NUMBERS, NUMBERS],
}


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_are_taken_or_refused_as_scikit_learn_does(kind: str) -> None:
    theirs, _ = outcome(linear_model.LinearRegression, lambda m: m.fit(ARRAYS[kind], TARGET))
    assert outcome(quick, lambda m: m.fit(ARRAYS[kind], TARGET))[0] == theirs
    reference, model = linear_model.LinearRegression().fit(NUMBERS, TARGET), quick().fit(NUMBERS, TARGET)
    theirs, _ = outcome(lambda: reference, lambda m: m.predict(ARRAYS[kind]))
    if kind == "None in a list":  # there, a TypeError of the product
        theirs = "ValueError"
    assert outcome(lambda: model, lambda m: m.predict(ARRAYS[kind]))[0] == theirs


TARGETS: dict[str, Any] = {
    "a list": TARGET.tolist(),
    "a column": TARGET[:, None],
    "two columns": np.c_[TARGET, -TARGET],
    "a series": pd.Series(TARGET),
    "a frame": pd.DataFrame({"y": TARGET}),
    "objects": TARGET.astype(object),
    "truths": TARGET > 0,
    "nullable": pd.Series(WHOLE, dtype="Int64"),
    "nullable with NA": pd.Series([pd.NA, *WHOLE[1:]], dtype="Int64"),
    "None in it": [None, *TARGET[1:]],
    "text": np.array(["a", "b"] * (ROWS // 2), dtype=object),
    "complex": TARGET + 1j,
    "NaN": np.r_[np.nan, TARGET[1:]],
    "infinity": np.r_[np.inf, TARGET[1:]],
    "None": None,
    "a scalar": 1.0,
    "three dimensions": TARGET[:, None, None],
    "fewer rows": TARGET[1:],
    "no columns": np.zeros((ROWS, 0)),
    "nothing": [],
}


@pytest.mark.parametrize("kind", TARGETS)
def test_targets_are_taken_or_refused_as_scikit_learn_does(kind: str) -> None:
    y = TARGETS[kind]
    theirs, _ = outcome(linear_model.LinearRegression, lambda m: m.fit(NUMBERS, y))
    assert outcome(quick, lambda m: m.fit(NUMBERS, y))[0] == theirs
    if theirs == "":
        expected, model = linear_model.LinearRegression().fit(NUMBERS, y), quick().fit(NUMBERS, y)
        assert model.coef_.shape == expected.coef_.shape and np.shape(model.intercept_) == np.shape(expected.intercept_)
        assert model.predict(NUMBERS).shape == expected.predict(NUMBERS).shape


@pytest.mark.parametrize("seed", range(60))
def test_names_of_columns_are_compared_as_in_scikit_learn(seed: int) -> None:
    """Fit with one table and predict with another: reordered, renamed, more or fewer columns, with names or without."""
    choice = random.Random(seed)
    names = choice.choice([["a", "b", "c"], [0, 1, 2], [("a", 1), ("a", 2), ("b", 1)], ["a", 1, "b"], list("aab")])
    X: Any = pd.DataFrame(NUMBERS, columns=names) if choice.random() < 0.8 else NUMBERS
    others = [X, NUMBERS, pd.DataFrame(NUMBERS, columns=list("abc")), pd.DataFrame(NUMBERS[:, :2], columns=list("ab"))]
    for changed in (list("bac"), list("xbc"), list("xyz"), list("abcd"), list("uvwxyzdefg")):
        others.append(pd.DataFrame(RNG.normal(size=(ROWS, len(changed))), columns=changed))
    for Z in choice.sample(others, 4):
        found: list[Any] = []
        for make in (linear_model.LinearRegression, quick):
            model = make()
            first = outcome(lambda: model, lambda m: m.fit(X, TARGET))  # noqa: B023
            second = outcome(lambda: model, lambda m: m.predict(Z)) if first[0] == "" else None  # noqa: B023
            seen = getattr(model, "feature_names_in_", None)
            found.append((first, second, None if seen is None or first[0] else seen.tolist()))
        assert found[0] == found[1]


@pytest.mark.parametrize("columns", [list("bac"), list("xbc"), list("abcd"), list("ab"), list("uvwxyzdefg")])
def test_the_message_about_names_is_scikit_learns(columns: list[str]) -> None:
    X, Z = pd.DataFrame(NUMBERS, columns=list("abc")), pd.DataFrame(RNG.normal(size=(5, len(columns))), columns=columns)
    with pytest.raises(ValueError) as theirs:
        linear_model.LinearRegression().fit(X, TARGET).predict(Z)
    with pytest.raises(ValueError) as ours:
        quick().fit(X, TARGET).predict(Z)
    assert str(ours.value) == str(theirs.value)


def test_names_are_forgotten_by_a_fit_without() -> None:
    model = quick().fit(pd.DataFrame(NUMBERS, columns=list("abc")), TARGET)
    assert not hasattr(model.fit(NUMBERS, TARGET), "feature_names_in_")


@pytest.mark.parametrize("make", [sparse.csr_matrix, sparse.csc_array, sparse.coo_matrix, sparse.dok_matrix])
def test_sparse_matrices_are_refused_in_words(make: Callable[[Any], Any]) -> None:
    model = quick().fit(NUMBERS, TARGET)
    with pytest.raises(TypeError, match=r"[Ss]parse.*X\.toarray\(\)"):
        quick().fit(make(NUMBERS), TARGET)
    with pytest.raises(TypeError, match=r"[Ss]parse.*X\.toarray\(\)"):
        model.predict(make(NUMBERS))


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_np_matrix_is_refused() -> None:
    with pytest.raises(TypeError, match=r"np\.matrix"):
        quick().fit(np.matrix(NUMBERS), TARGET)


def test_a_model_that_is_not_fitted_raises_scikit_learns_error_too() -> None:
    from sklearn import exceptions

    with pytest.raises(exceptions.NotFittedError) as error:
        quick().predict(NUMBERS)
    assert isinstance(error.value, NotFittedError)


@pytest.mark.parametrize("named", [True, False])
def test_names_and_parameters_survive_clones_pickles_and_files(named: bool, tmp_path: Any) -> None:
    from sklearn.base import clone

    X = pd.DataFrame(NUMBERS, columns=list("abc")) if named else NUMBERS
    model = LinearRegression(epochs=3, l2=0.1).fit(X, TARGET)
    model.save(tmp_path / "m")
    for other in (pickle.loads(pickle.dumps(model)), LinearRegression.load(tmp_path / "m")):
        assert hasattr(other, "feature_names_in_") == named
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
        if named:
            with pytest.raises(ValueError, match="same order"):
                other.predict(X[["b", "a", "c"]])
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "coef_")
    with pytest.raises(ValueError, match="no parameter 'no_such'"):
        model.set_params(no_such=1)


def test_names_given_to_a_file_are_compared_with_frames_only(tmp_path: Any) -> None:
    model = quick().fit(NUMBERS, TARGET)
    model.save(tmp_path / "m", features=list("abc"))
    loaded = LinearRegression.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.predict(NUMBERS), model.predict(NUMBERS))
    frames = pd.DataFrame(NUMBERS, columns=list("abc"))
    np.testing.assert_array_equal(loaded.predict(frames), model.predict(NUMBERS))
    with pytest.raises(ValueError, match="same order"):
        loaded.predict(frames[["c", "a", "b"]])


def test_neither_pandas_nor_scikit_learn_is_imported(python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    python(
        """
        import sys
        from fastgrad.linreg import LinearRegression, NotFittedError

        try:
            LinearRegression().predict([[1.0]])
        except NotFittedError:
            model = LinearRegression(epochs=1).fit([[1.0], [2.0]], [True, False])
        model.predict([[1.0]])
        assert not {"pandas", "sklearn"} & set(sys.modules)
        """
    )
