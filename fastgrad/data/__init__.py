"""Small data sets that ship with fastgrad.

`diabetes.csv` holds the ten baseline variables and the response of the diabetes study, in their original units, as
published with B. Efron, T. Hastie, I. Johnstone and R. Tibshirani (2004), "Least Angle Regression", Annals of
Statistics 32:407-499: one header row, 442 patients, the columns age, sex, bmi, bp, s1 to s6 and target.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

__all__ = ["DIABETES_CSV", "DIABETES_SOURCE", "Dataset", "load_diabetes"]

DIABETES_CSV = Path(__file__).with_name("diabetes.csv")
DIABETES_SOURCE = "Efron, Hastie, Johnstone, Tibshirani (2004), Least Angle Regression, Annals of Statistics 32:407-499"


class Dataset(NamedTuple):
    """Features (n, p) and target (n,) in float64, with the names of the p columns."""

    data: np.ndarray
    target: np.ndarray
    feature_names: list[str]


def load_diabetes() -> Dataset:
    """The diabetes study of Efron, Hastie, Johnstone and Tibshirani (2004), in original units.

    Returns:
        `data` (442, 10): age in years, sex (1 or 2), body mass index in kg/m², mean arterial blood pressure in mmHg,
        and six blood serum measurements: s1 total cholesterol, s2 low-density and s3 high-density lipoproteins
        (mg/dl), s4 total cholesterol / HDL, s5 log of serum triglycerides, s6 blood glucose (mg/dl). `target` (442,):
        a measure of the disease's progression one year later. `feature_names`: the ten names.

    >>> X, y, names = load_diabetes()
    >>> X.shape, y.shape, names[:4]
    ((442, 10), (442,), ['age', 'sex', 'bmi', 'bp'])
    """
    with DIABETES_CSV.open(encoding="utf-8") as file:
        *names, _ = file.readline().strip().split(",")
        table = np.loadtxt(file, delimiter=",")
    return Dataset(table[:, :-1], table[:, -1], names)
