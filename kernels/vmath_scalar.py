"""lgamma digamma erfinv: scalar functions with branches, which LLVM does not vectorise."""

import math

import numpy as np
from numba import njit

from .native import copysign, fabs, floor, sqrt
from .vmath_core import polynomial
from .vmath_erf import erf_f64, erfc_f64
from .vmath_exp import exp_f64
from .vmath_log import log_f64
from .vmath_trig import tan_f64

scalar = njit(error_model="numpy")

# digamma(x) / (x - root) in x - 1.5 for 1 <= x <= 2, minimax, relative error 2**-53.6; the positive root as a pair
DIGAMMA_ROOT_HI, DIGAMMA_ROOT_LO = 1.4616321449683622, 9.549995429965697e-17
DIGAMMA_CENTRE = (
    0.951055876031833, -0.4236274212814606, 0.24054248424077387, -0.14840492305389177, 0.09498872445498381,
    -0.06192213327457593, 0.04076083381026807, -0.026975796695264363, 0.017907252495075653, -0.011908219343769634,
    0.007926943818370811, -0.005279947129841788, 0.0035190139166507897, -0.0023454143895570174, 0.0015565894991783535,
    -0.0010368719525113645, 0.000723470222908687, -0.0004846444570438649, 0.0002269628842600203,
    -0.0001471169047503732, 0.000259901073171061, -0.0001764658130011905,
)  # fmt: skip
# x**2 (log(x) - 1 / (2 x) - digamma(x)) in 1 / x**2: Bernoulli numbers B(2k) / (2k)
DIGAMMA_FAR = (1.0 / 12.0, -1.0 / 120.0, 1.0 / 252.0, -1.0 / 240.0, 1.0 / 132.0, -691.0 / 32760.0, 1.0 / 12.0)

# with w = -log(1 - x**2): erfinv(x) / x in w - 2.5 for w < 5 (Giles, "Approximating the erfinv function", 2010), and
# erfinv(x) in sqrt(w) - 4 beyond, minimax, relative error 2**-21.9
ERFINV_CENTRE = (
    1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06, -3.5233877e-06,
    3.43273939e-07, 2.81022636e-08,
)  # fmt: skip
ERFINV_TAIL = (
    3.8397831925180457, 1.0094905815211608, 0.0012569123050478585, -0.0008384505880214269, 0.0002893475080700818,
    -9.888295643402349e-05, 2.6153202094218756e-05, -7.105633251784743e-08, -1.1717834980027258e-06,
)  # fmt: skip
HALF_SQRT_PI = 0.886226925452758


@scalar
def lgamma_f64(x):
    """log |gamma(x)|, from the C library."""
    return math.lgamma(x)


@scalar
def lgamma_f32(x):
    return np.float32(math.lgamma(np.float64(x)))


@scalar
def digamma_positive(x):
    """digamma(x) for x > 0: recurrence into [1, 2] or from the asymptotic series beyond 10."""
    if x >= 10.0:
        square = 1.0 / (x * x)
        return log_f64(x) - (0.5 / x + square * polynomial(square, DIGAMMA_FAR))
    shifted = 0.0
    while x > 2.0:
        x -= 1.0
        shifted += 1.0 / x
    if x < 1.0:
        shifted -= 1.0 / x
        x += 1.0
    return ((x - DIGAMMA_ROOT_HI) - DIGAMMA_ROOT_LO) * polynomial(x - 1.5, DIGAMMA_CENTRE) + shifted


@scalar
def digamma_f64(x):
    """The logarithmic derivative of gamma; as in PyTorch, -inf at +0, inf at -0 and NaN at the other poles."""
    if x > 0.0:
        return digamma_positive(x) if x < np.inf else x
    if x == 0.0:
        return copysign(np.inf, -x)
    if not x > -np.inf or floor(x) == x:
        return np.nan
    fraction = x - floor(x)  # tan(pi x) = tan(pi (fraction - 1)), the smaller of the two
    fraction = fraction - 1.0 if fraction > 0.5 else fraction
    return digamma_positive(1.0 - x) - math.pi / tan_f64(math.pi * fraction)


@scalar
def digamma_f32(x):
    return np.float32(digamma_f64(np.float64(x)))


@scalar
def erfinv_f64(x):
    """y with erf(y) = x: Giles' estimate and Halley steps on erf, or on erfc where |x| > 1/2."""
    a = fabs(x)
    if not a < 1.0:
        return copysign(np.inf, x) if a == 1.0 else np.nan
    if a < 1e-9:
        return x * HALF_SQRT_PI
    w = -log_f64((1.0 - a) * (1.0 + a))
    y = a * polynomial(w - 2.5, ERFINV_CENTRE) if w < 5.0 else polynomial(sqrt(w) - 4.0, ERFINV_TAIL)
    for _ in range(2):
        residual = (1.0 - a) - erfc_f64(y) if a > 0.5 else erf_f64(y) - a
        step = residual * HALF_SQRT_PI * exp_f64(y * y)
        y -= step / (1.0 + y * step)
    return copysign(y, x)


@scalar
def erfinv_f32(x):
    return np.float32(erfinv_f64(np.float64(x)))
