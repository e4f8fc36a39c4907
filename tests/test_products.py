"""Matrix products of all sizes, layouts and ways to compute them, and Einstein's sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
import pytest
from conftest import same_bits

import fastgrad
from fastgrad.kernels import blas, copy, matmul
from fastgrad.ops import products

# Every kernel: loops, the own product (also its tails and parts of k), matrix-vector products, and cuts into tasks.
SIZES = [
    (1, 1, 1), (3, 2, 4), (2, 9, 2), (8, 32, 32), (7, 5, 33), (33, 77, 45), (9, 513, 31), (40, 1100, 65), (300, 40, 600),
    (257, 300, 130), (1, 40, 50), (50, 40, 1), (1, 700, 900), (900, 700, 1), (20000, 40, 1), (40, 20000, 1), (3, 300000, 1),
    (1, 300000, 1), (1, 40, 20000), (600, 2, 700), (64, 1, 64),
]  # fmt: skip


def operand(rng: np.random.Generator, m: int, n: int, dtype: str, turned: bool) -> tuple[Any, np.ndarray]:
    values = rng.standard_normal((n, m) if turned else (m, n)).astype(dtype)
    t = fastgrad.tensor(values)
    return (t.T, values.T) if turned else (t, values)


def close(got: Any, left: np.ndarray, right: np.ndarray) -> bool:
    """Within the error that any order of summation stays below."""
    k, eps = left.shape[-1], np.finfo(got.numpy().dtype).eps
    wide = np.longdouble if got.dtype is fastgrad.float64 else np.float64
    want = left.astype(wide) @ right.astype(wide)
    bound = 2 * k * eps * (np.abs(left).astype(wide) @ np.abs(right).astype(wide)) + 1e-30
    return bool((np.abs(got.numpy() - want) <= bound).all())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [s for s in SIZES if s[0] * s[1] * s[2] < 20_000_000])
def test_products_of_all_sizes_and_layouts(size: tuple[int, int, int], dtype: str) -> None:
    m, k, n = size
    rng = np.random.default_rng(m + 7 * k + 31 * n)
    for turned_a in (False, True):
        for turned_b in (False, True):
            a, left = operand(rng, m, k, dtype, turned_a)
            b, right = operand(rng, k, n, dtype, turned_b)
            got = a @ b
            assert got.shape == (m, n)
            assert close(got, left, right), (turned_a, turned_b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [(300, 40, 600), (257, 300, 130), (20000, 40, 1), (40, 20000, 1), (1, 300000, 1)])
def test_bits_do_not_depend_on_threads_or_tiers(size: tuple[int, int, int], dtype: str) -> None:
    rng = np.random.default_rng(0)
    for turned in (False, True):
        a, _ = operand(rng, size[0], size[1], dtype, turned)
        b, _ = operand(rng, size[1], size[2], dtype, not turned)
        results = []
        for threads in (1, 2, 5):
            for tier in (0, 1):
                fastgrad.set_num_threads(threads)
                fastgrad.set_tier(tier)
                results.append((a @ b).clone())
        assert all(same_bits(x, results[0]) for x in results[1:])


def test_an_element_does_not_depend_on_its_neighbours() -> None:
    if matmul.choose("f4", 60, 100, 700, (700, 1), (100, 1)) != "own":
        pytest.skip("BLAS computes this product here")
    rng = np.random.default_rng(0)
    a, _ = operand(rng, 60, 700, "float32", False)
    b, _ = operand(rng, 700, 100, "float32", False)
    whole = a @ b
    assert same_bits((a[5:18] @ b[:, 3:40]).contiguous(), whole[5:18, 3:40].contiguous())
    assert same_bits((b.T @ a.T).T.contiguous(), whole)


def test_infinities_and_nans_stay_in_their_rows_and_columns() -> None:
    a, b = np.ones((50, 30), np.float32), np.ones((30, 41), np.float32)
    a[3, 4], a[20, 29], b[7, 40] = np.inf, np.nan, np.nan
    got = (fastgrad.tensor(a) @ fastgrad.tensor(b)).numpy()
    with np.errstate(invalid="ignore"):  # some BLAS libraries raise the flag for NaN
        want = a @ b
    assert np.array_equal(got, want, equal_nan=True)


def test_batches_are_cut_into_tasks_and_shared_matrices_are_read_once() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((20, 60, 70)).astype("f4"), rng.standard_normal((20, 70, 50)).astype("f4")
    got = fastgrad.tensor(a) @ fastgrad.tensor(b)
    assert np.allclose(got.numpy(), a.astype("f8") @ b, atol=1e-4)
    shared = fastgrad.tensor(a) @ fastgrad.tensor(b[0])
    assert np.allclose(shared.numpy(), a.astype("f8") @ b[0], atol=1e-4)


@pytest.mark.parametrize("how", ["own", "gemm"])
def test_tasks_cover_a_product_once(how: str) -> None:
    for m, n, k in ((300, 40, 600), (1000, 1000, 1000), (40, 100_000, 20), (100_000, 40, 20)):
        covered = np.zeros((m, n), np.int8)
        parts = list(products._cut(how, "f4", 4, m, n, k, 1))
        for part in parts:
            (i, rows), (j, columns) = part.m, part.n
            covered[i : i + rows, j : j + columns] += 1
        assert len(parts) > 1
        assert (covered == 1).all()


FORCED = """
    import sys
    import numpy as np
    import fastgrad
    from fastgrad.kernels import blas
    rng = np.random.default_rng(0)
    for dtype in ("float32", "float64"):
        for m, k, n in ((3, 4, 5), (30, 40, 50), (40, 3000, 33), (300, 700, 500), (1000, 1000, 1), (1, 900, 800)):
            for turned in (False, True):
                a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k) if turned else (k, n)).astype(dtype)
                right = fastgrad.tensor(b).T if turned else fastgrad.tensor(b)
                results = []
                for threads in (1, 2, 3):
                    fastgrad.set_num_threads(threads)
                    results.append((fastgrad.tensor(a) @ right).numpy().tobytes())
                assert len(set(results)) == 1, (m, k, n)
                got = np.frombuffer(results[0], dtype).reshape(m, n)
                assert np.allclose(got, a.astype("f8") @ (b.T if turned else b), atol=1e-3 if dtype == "float32" else 1e-9)
    print(blas.library_name())
"""


def test_openblas_can_be_forced(python: Callable[..., Any]) -> None:
    assert python(FORCED, FASTGRAD_BLAS="openblas").stdout == "openblas\n"


def test_mkl_is_used_where_it_is_installed(python: Callable[..., Any]) -> None:
    if blas._load_mkl() is None:
        process = python("import fastgrad; (fastgrad.ones(40, 40) @ fastgrad.ones(40, 40)).tolist()", check=False, FASTGRAD_BLAS="mkl")  # fmt: skip
        assert process.returncode == 1
        assert "pip install fastgrad[mkl]" in process.stderr
    else:
        assert python(FORCED, FASTGRAD_BLAS="mkl").stdout == "mkl\n"


def test_an_unknown_blas_is_refused(python: Callable[..., Any]) -> None:
    process = python(
        "import fastgrad; (fastgrad.ones(40, 40) @ fastgrad.ones(40, 40)).tolist()", check=False, FASTGRAD_BLAS="blis"
    )
    assert "FASTGRAD_BLAS must be openblas or mkl, not 'blis'" in process.stderr


NARROW = """
    import os
    import sys
    import llvmlite.binding as llvm

    class Features(dict):
        def flatten(self):
            return ",".join(("+" if on else "-") + name for name, on in sorted(self.items()))

    if {narrow}:
        found = {{k: v and not k.startswith(("avx512", "avx10", "amx")) for k, v in llvm.get_host_cpu_features().items()}}
        features = Features(found)
        llvm.get_host_cpu_name = lambda: "haswell"
        llvm.get_host_cpu_features = lambda: features
        os.environ["NUMBA_CPU_NAME"], os.environ["NUMBA_CPU_FEATURES"] = "haswell", features.flatten()
    import hashlib
    import numpy as np
    import fastgrad
    from fastgrad.kernels import vectors
    rng = np.random.default_rng(0)
    digest = hashlib.sha256()
    for dtype in ("float32", "float64"):
        for m, k, n in ((4, 4, 5), (33, 77, 45), (40, 1100, 65)):
            a, b = rng.standard_normal((m, k)).astype(dtype), rng.standard_normal((n, k)).astype(dtype)
            digest.update((fastgrad.tensor(a) @ fastgrad.tensor(b).T).numpy().tobytes())
    print(vectors.vector_bytes(), digest.hexdigest())
"""


@pytest.mark.skipif(
    not llvm.get_host_cpu_features().get("avx512f"), reason="this CPU has no wider vectors to do without"
)
def test_bits_do_not_depend_on_the_width_of_vectors(python: Callable[..., Any]) -> None:
    wide, narrow = python(NARROW.format(narrow=False)).stdout.split(), python(NARROW.format(narrow=True)).stdout.split()
    assert (wide[0], narrow[0]) == ("64", "32")
    assert wide[1] == narrow[1]


def test_a_linear_layer_copies_no_matrix() -> None:
    """Transposes are read as they lie, and a weight's gradient is computed where it is handed over."""
    w = fastgrad.randn(300, 500, requires_grad=True)
    x = fastgrad.randn(20, 500)

    @fastgrad.compile
    def step(x: Any) -> Any:
        w.grad = None
        loss = (x @ w.T).sum()
        loss.backward()
        return loss

    for _ in range(3):
        step(x)
    ((replay,),) = step._replays.values()
    words = replay.program.words
    copies = words[words[:, 0] == copy.load("f4")]
    assert x.numel() not in copies[:, 1]
    assert w.numel() not in copies[:, 1]
    assert np.allclose(w.grad.numpy(), np.broadcast_to(x.numpy().sum(0), (300, 500)), atol=1e-4)


# ------------------------------------------------------------------------------------------------------------- einsum

EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("i", [(3,)]), ("i->", [(3,)]), ("ij->ji", [(2, 3)]), ("ij", [(2, 3)]), ("ji", [(2, 3)]), ("ii", [(3, 3)]), ("ii->i", [(3, 3)]),
    ("iij->j", [(3, 3, 2)]), ("iji", [(3, 2, 3)]), ("iiii->i", [(2, 2, 2, 2)]), ("ij->", [(2, 3)]), ("ij->i", [(2, 3)]),
    ("i,i", [(3,), (3,)]), ("i,i->i", [(3,), (3,)]), ("i,j->ij", [(3,), (4,)]), ("i,j->ji", [(3,), (4,)]), ("i,j", [(3,), (4,)]),
    ("ij,jk", [(2, 3), (3, 4)]), ("ij,jk->ik", [(2, 3), (3, 4)]), ("ij,jk->ki", [(2, 3), (3, 4)]), ("ij,kj->ik", [(2, 3), (4, 3)]),
    ("ij,ij->", [(2, 3), (2, 3)]), ("ij,j", [(2, 3), (3,)]), ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]), ("bij,bjk->ik", [(5, 2, 3), (5, 3, 4)]),
    ("bij,jk->bik", [(5, 2, 3), (3, 4)]), ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]), ("bihd,bjhd->bhij", [(2, 4, 3, 5), (2, 6, 3, 5)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (5, 3, 4)]), ("...ij,...jk", [(7, 1, 2, 3), (5, 3, 4)]), ("...i->...", [(2, 3, 4)]), ("i...->...", [(2, 3, 4)]),
    ("i...i->i...", [(3, 2, 3)]), ("...,...", [(2, 3), (3,)]), ("a...,...b->...ab", [(2, 3), (3, 4)]), ("...", [(2, 3)]), ("...->", [()]),
    ("i,i,i", [(3,), (3,), (3,)]), ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]), ("bn,anm,bm->ba", [(2, 5), (3, 5, 4), (2, 4)]),
    ("ab,cd,ef->fbd", [(2, 3), (2, 2), (3, 4)]), ("ij,jk->ik", [(2, 1), (3, 4)]), ("ij,ij->ij", [(1, 3), (2, 3)]), ("ij,kl->ijkl", [(1, 2), (1, 3)]),
    ("abc,cba->b", [(2, 3, 4), (4, 3, 2)]), ("Ab,bC->CA", [(2, 3), (3, 4)]), (" i j , j k -> i k ", [(2, 3), (3, 4)]), ("ij,jk->ik", [(2, 0), (0, 4)]),
    ("ibk,kbj->bij", [(2, 3, 4), (4, 3, 5)]), ("nchw,ochw->no", [(2, 3, 4, 5), (6, 3, 4, 5)]), ("ij,jk,jk->ik", [(2, 3), (3, 4), (3, 4)]),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS)
def test_einsum_and_its_gradients(equation: str, shapes: list[tuple[int, ...]]) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s) for s in shapes]
    ours = [fastgrad.tensor(v, requires_grad=True) for v in values]
    theirs = [torch.tensor(v, requires_grad=True) for v in values]
    got, want = fastgrad.einsum(equation, *ours), torch.einsum(equation, *theirs)
    assert tuple(got.shape) == tuple(want.shape)
    assert np.allclose(got.detach().numpy(), want.detach().numpy(), atol=1e-12)
    weights = rng.standard_normal(tuple(want.shape))
    (got * fastgrad.tensor(weights)).sum().backward()
    (want * torch.tensor(weights)).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize(
    ("equation", "shapes"), [e for e in EQUATIONS if e[1] != [()] and (1, 3) not in e[1] and (2, 1) not in e[1]]
)
def test_einsum_agrees_with_numpy(equation: str, shapes: list[tuple[int, ...]]) -> None:
    rng = np.random.default_rng(1)
    values = [rng.integers(-5, 5, s) for s in shapes]
    got = fastgrad.einsum(equation, *[fastgrad.tensor(v) for v in values])
    assert np.array_equal(got.numpy(), np.einsum(equation, *values))


def test_einsum_takes_lists_of_subscripts_and_a_list_of_operands() -> None:
    a, b = fastgrad.randn(2, 3), fastgrad.randn(3, 4)
    assert same_bits(fastgrad.einsum(a, [0, 1], b, [1, 2], [0, 2]), a @ b)
    assert same_bits(fastgrad.einsum(a, [..., 1], b, [1, 2]), a @ b)
    assert same_bits(fastgrad.einsum("ij,jk", [a, b]), a @ b)


@pytest.mark.parametrize(
    ("equation", "shapes", "message"),
    [
        ("ij,jk", [(2, 3)], "fewer operands"),
        ("ij", [(2, 3), (3, 4)], "more operands"),
        ("ij,jk", [(2, 3), (4, 5)], "subscript j has size 4 for operand 1 which does not broadcast"),
        ("ijk", [(2, 3)], r"number of subscripts in the equation \(3\).*number of dimensions \(2\)"),
        ("i", [(2, 3)], "no ellipsis was given"),
        ("ii", [(2, 3)], "repeated for an operand but the sizes don't match, 3 != 2|subscript i has size 3"),
        ("ij->k", [(2, 3)], "output subscript k does not appear"),
        ("ij->ii", [(2, 3)], "output subscript i appears more than once"),
        ("i1", [(2, 3)], "invalid subscript '1'"),
        ("...i->...j", [(2, 3)], "output subscript j"),
    ],
)
def test_wrong_equations_are_refused_where_they_stand(equation: str, shapes: Any, message: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=message):
        fastgrad.einsum(equation, *[fastgrad.ones(*s) for s in shapes])
    with pytest.raises(RuntimeError):
        torch.einsum(equation, *[torch.ones(*s) for s in shapes])


def test_einsum_without_operands_is_refused() -> None:
    with pytest.raises(RuntimeError, match="at least one operand"):
        fastgrad.einsum("ij")


def test_a_pair_of_operands_is_one_product() -> None:
    a, b = fastgrad.randn(3, 4, 5), fastgrad.randn(3, 6, 5)
    table = fastgrad.tape(fastgrad.einsum("bid,bjd->bij", a, b))
    assert table.count("matmul") == 1
    assert " mul " not in table and " sum " not in table
