"""Functions of neural networks: activations, losses, linear maps. Shapes follow PyTorch: a batch comes first, classes second."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from .. import recording as tape
from ..dispatch import composite, tensor_operand, unary
from ..dtypes import FLOAT, int64, to_dtype
from ..functions import in_place, pointwise, random, reductions
from ..functions.arguments import numpy_names
from ..functions.pointwise import logsigmoid, sigmoid, tanh
from ..functions.reductions import wrap_dim
from ..ops import arrays
from ..ops import elementwise as e
from ..ops.table import CONVERT

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "dropout",
    "elu",
    "gelu",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "leaky_relu",
    "linear",
    "log_softmax",
    "logsigmoid",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "relu",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "softmax",
    "softplus",
    "tanh",
]


# ---- linear maps and activations


@composite("Addmm")
def _linear(input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    shape = input.shape
    if len(shape) == 1:
        input = tape.apply(arrays.reshape, (input,), (1, *shape))
    elif len(shape) > 2:
        input = tape.apply(arrays.reshape, (input,), (tape.count(shape[:-1]), shape[-1]))
    out = tape.apply(arrays.matmul, (input, arrays.transpose(weight)))
    if len(shape) != 2:
        out = tape.apply(arrays.reshape, (out,), (*shape[:-1], weight.shape[0]))
    return out if bias is None else e.add(out, bias)


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input @ weight.T + bias`; input (..., in), weight (out, in), bias (out).

    >>> fastgrad.nn.functional.linear(fastgrad.ones(1, 2), fastgrad.ones(3, 2))
    tensor([[2., 2., 2.]])
    """
    tensor_operand(input, "linear")
    w = tensor_operand(weight, "linear")._meta.shape
    if len(w) != 2:
        if len(w) == 1 and (bias is None or not bias.ndim):
            return input @ weight if bias is None else input @ weight + bias
        raise RuntimeError(f"linear: weight must be a matrix (out, in), got shape {list(w)}")
    shape = input._meta.shape
    if not shape or shape[-1] != w[1]:
        rows = tape.count(shape[:-1])
        raise RuntimeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied ({rows}x{shape[-1] if shape else 0} and {w[1]}x{w[0]}): the "
            f"last size of input {list(shape)} must be the weight's in_features {w[1]}"
        )
    return _linear(input, weight, bias)


def _float(input: Tensor, dtype: Any) -> Tensor:
    if dtype is not None:
        dtype = to_dtype(dtype)
        if dtype.category != FLOAT:
            raise NotImplementedError(f'"softmax" not implemented for {dtype}; its results are floats')
        return tape.apply(CONVERT, (input,), dtype) if input.dtype is not dtype else input
    if input.dtype.category != FLOAT:
        raise NotImplementedError(
            f'"softmax" not implemented for {input.dtype}; convert the input with .float() or pass dtype'
        )
    return input


def _total(input: Tensor, dim: int) -> Tensor:
    return arrays._expand_back(tape.apply(arrays.sum, (input,), (dim,)), input, (dim,))


def _shifted(input: Tensor, dim: int) -> Tensor:
    top = tape.apply(arrays.detach, (tape.apply(arrays.amax, (input,), (dim,)),))
    return input - arrays._expand_back(top, input, (dim,))


@composite("Softmax")
def _softmax(input: Tensor, dim: int, dtype: Any) -> Tensor:
    input = _float(input, dtype)
    if input.ndim == 0:
        return e.exp_op(input * 0)
    if input.numel() == 0:
        return input * 1
    weights = e.exp_op(_shifted(input, dim))
    return weights / _total(weights, dim)


@composite("LogSoftmax")
def _log_softmax(input: Tensor, dim: int, dtype: Any) -> Tensor:
    input = _float(input, dtype)
    if input.ndim == 0:
        return input * 0
    if input.numel() == 0:
        return input * 1
    shifted = _shifted(input, dim)
    total = tape.apply(arrays.sum, (e.exp_op(shifted),), (dim,))
    return shifted - arrays._expand_back(e.log_op(total), input, (dim,))


def _softmax_dim(name: str, input: Tensor, dim: int | None) -> int:
    if dim is None:
        dim = 0 if input.ndim in (0, 1, 3) else 1
    return wrap_dim(name, dim, input.ndim)


@numpy_names
def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """exp(input) / sum(exp(input)) along a dimension, without overflow."""
    return _softmax(tensor_operand(input, "softmax"), _softmax_dim("softmax", input, dim), dtype)


@numpy_names
def log_softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None) -> Tensor:
    """The logarithm of softmax."""
    return _log_softmax(tensor_operand(input, "log_softmax"), _softmax_dim("log_softmax", input, dim), dtype)


def _written(function: Any, input: Tensor, *args: Any) -> Tensor:
    """The result of a function, in the memory of its input."""
    return in_place.writer(f"{function.__name__}_", function)(input, *args)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(input, 0)."""
    return in_place.relu_(tensor_operand(input, "relu")) if inplace else pointwise.relu(input)


softplus_unit = unary(e.softplus_op)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta input)) / beta, the identity where beta input exceeds the threshold."""
    scaled = input if beta == 1.0 else input * beta
    smooth = softplus_unit(scaled)
    return pointwise.where(scaled > threshold, input, smooth if beta == 1.0 else smooth / beta)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """The input where it is positive, else `negative_slope` times it."""
    if not tensor_operand(input, "leaky_relu").is_floating_point():
        raise NotImplementedError(f'"leaky_relu" not implemented for {input.dtype}; convert it with .float()')
    if inplace:
        return _written(leaky_relu, input, negative_slope)
    return e.leaky_relu(input, float(negative_slope))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """The input where it is positive, else alpha (exp(input) - 1)."""
    if not tensor_operand(input, "elu").is_floating_point():
        raise NotImplementedError(f'"elu" not implemented for {input.dtype}; convert it with .float()')
    return _written(elu, input, alpha) if inplace else e.elu(input, float(alpha))


@composite("Silu")
def _silu(input: Tensor) -> Tensor:
    return input * e.sigmoid_op(input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """input * sigmoid(input)."""
    tensor_operand(input, "silu")
    return _written(silu, input) if inplace else _silu(input)


@composite("Gelu")
def _gelu(input: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        inner = (input + input * input * input * 0.044715) * math.sqrt(2 / math.pi)
        return input * 0.5 * (e.tanh_op(inner) + 1)
    return input * 0.5 * (e.erf_op(input * math.sqrt(0.5)) + 1)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """input times the normal distribution function, exactly or by tanh (Hendrycks and Gimpel 2016)."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return _gelu(input, approximate)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Elements set to zero with probability p while training, the others scaled by 1 / (1 - p)."""
    tensor_operand(input, "dropout")
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if inplace:
        return _written(dropout, input, p, training)
    if not training or p == 0.0:
        return input
    if p == 1.0:
        return input * 0.0
    kept = random.draw("bernoulli", tuple(input.shape), input.dtype, 1.0 - p, 0.0, None)
    return _dropped(input, kept, 1.0 / (1.0 - p))


@composite("Dropout")
def _dropped(input: Tensor, kept: Tensor, scale: float) -> Tensor:
    return input * (kept * scale)


@composite()
def _one_hot(input: Tensor, classes: int) -> Tensor:
    wide = tape.apply(
        arrays.expand, (tape.apply(arrays.reshape, (input,), (*input.shape, 1)),), (*input.shape, classes)
    )
    zeros = tape.apply(arrays.expand, (tape.apply(CONVERT, (tape.constant(0),), int64),), (*input.shape, classes))
    ones = tape.apply(arrays.expand, (tape.apply(CONVERT, (tape.constant(1),), int64),), (*input.shape, 1))
    place = tape.apply(arrays.slice_, (wide,), (*[(0, 1, n) for n in input.shape], (0, 1, 1)))
    return tape.apply(arrays.scatter, (zeros, place, ones), input.ndim)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """1 at each class's place, 0 elsewhere: (...) int64 -> (..., classes) int64. Without `num_classes` the input is observed."""
    tensor_operand(tensor, "one_hot")
    if tensor.dtype is not int64:
        raise RuntimeError(f"one_hot is only applicable to index tensor of type LongTensor, got {tensor.dtype}")
    if num_classes == -1:
        if tensor.numel() == 0:
            raise RuntimeError("Can not infer total number of classes from empty tensor.")
        if int(tensor.min()) < 0:
            raise RuntimeError("Class values must be non-negative.")
        num_classes = int(tensor.max()) + 1
    return _one_hot(tensor, num_classes)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """The input divided by its p-norm along a dimension (at least eps)."""
    return input / pointwise.clamp(reductions.norm(input, p, dim, True), min=eps).expand_as(input)


# ---- losses


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return reductions.mean(loss)
    if reduction == "sum":
        return reductions.sum(loss)
    return loss


def reduction_of(reduction: str, size_average: Any = None, reduce: Any = None, *others: str) -> str:
    """The reduction that arguments ask for: its name, checked, or (with a warning) what the two older flags say."""
    if size_average is not None or reduce is not None:
        older = "none" if reduce is False else "sum" if size_average is False else "mean"
        warnings.warn(
            f"size_average and reduce args will be deprecated, please use reduction='{older}' instead.", stacklevel=3
        )
        return older
    if reduction not in ("none", "mean", "sum", *others):
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def _warn_sizes(input: Tensor, target: Tensor) -> None:
    tensor_operand(input, "loss")
    tensor_operand(target, "loss")
    if input._meta.shape != target._meta.shape:
        warnings.warn(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}). This will likely "
            "lead to incorrect results due to broadcasting. Please ensure they have the same size.",
            stacklevel=3,
        )


def _weighted(each: Tensor, weight: Tensor, reduction: str, of_weights: bool = True) -> Tensor:
    """Losses times their weights; ValueError for other shapes. Their mean is one `of_weights`, or of elements."""
    if tensor_operand(weight, "loss")._meta.shape != each._meta.shape:
        raise ValueError(f"weight {list(weight.shape)} and input {list(each.shape)} must have the same size")
    total = _reduced(each * weight, "sum" if reduction == "mean" and of_weights else reduction)
    return total / reductions.sum(weight) if reduction == "mean" and of_weights else total


@composite("MseLoss")
def _mse_loss(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    return _reduced(e.square(input - target), reduction)


def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean (or sum, or each) squared difference, perhaps weighted."""
    reduction = reduction_of(reduction, size_average, reduce)
    _warn_sizes(input, target)
    if weight is not None:
        return _weighted(_mse_loss(input, target, "none"), weight, reduction)
    return _mse_loss(input, target, reduction)


@composite("L1Loss")
def _l1_loss(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    return _reduced(e.abs(input - target), reduction)


def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The mean (or sum, or each) absolute difference, perhaps weighted."""
    reduction = reduction_of(reduction, size_average, reduce)
    _warn_sizes(input, target)
    if weight is not None:
        return _weighted(_l1_loss(input, target, "none"), weight, reduction)
    return _l1_loss(input, target, reduction)


@composite("SmoothL1Loss")
def _smooth(input: Tensor, target: Tensor, reduction: str, beta: float) -> Tensor:
    if beta == 0.0:
        return _reduced(e.abs(input - target), reduction)
    return _reduced(e.smooth_l1(input - target, beta), reduction)


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: Any = None,
    reduce: Any = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic below beta, linear above; RuntimeError for a negative beta."""
    reduction = reduction_of(reduction, size_average, reduce)
    if beta < 0:
        raise RuntimeError(f"smooth_l1_loss does not support negative values for beta, got {beta}.")
    _warn_sizes(input, target)
    return _smooth(input, target, reduction, float(beta))


@composite("HuberLoss")
def _huber(input: Tensor, target: Tensor, reduction: str, delta: float) -> Tensor:
    return _reduced(e.huber(input - target, delta), reduction)


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """Half the square below delta, delta times the linear part above; RuntimeError unless delta is positive."""
    reduction = reduction_of(reduction)
    if not delta > 0:
        raise RuntimeError(f"huber_loss does not support non-positive values for delta, got {delta}.")
    _warn_sizes(input, target)
    if weight is not None:
        return _weighted(_huber(input, target, "none", float(delta)), weight, reduction, of_weights=False)
    return _huber(input, target, reduction, float(delta))


@composite("BinaryCrossEntropyWithLogits")
def _bce_logits(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    if pos_weight is None:
        loss = e.bce_logits(input, target)
    else:
        factor = (pos_weight - 1) * target + 1
        loss = (1 - target) * input + factor * e.softplus_op(-input)
    return _reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Cross entropy of sigmoid(input) and target, computed from the logits without overflow."""
    tensor_operand(input, "binary_cross_entropy_with_logits")
    tensor_operand(target, "binary_cross_entropy_with_logits")
    reduction = reduction_of(reduction, size_average, reduce)
    if input._meta.shape != target._meta.shape:
        raise ValueError(f"Target size ({target.size()}) must be the same as input size ({input.size()})")
    return _bce_logits(input, target, weight, pos_weight, reduction)


@composite("BinaryCrossEntropy")
def _bce(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    inside = (input >= 0) & (input <= 1) & (target >= 0) & (target <= 1)
    wrong = "binary_cross_entropy: all elements of input and target should be between 0 and 1"
    loss = e.bce(tape.apply(arrays.required, (input, inside), wrong), target)
    return _reduced(loss if weight is None else loss * weight, reduction)


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """Cross entropy of probabilities and target, logarithms kept above -100; RuntimeError for what is not between 0 and 1."""
    tensor_operand(input, "binary_cross_entropy")
    tensor_operand(target, "binary_cross_entropy")
    reduction = reduction_of(reduction, size_average, reduce)
    if input._meta.shape != target._meta.shape:
        raise ValueError(
            f"Using a target size ({target.size()}) that is different to the input size ({input.size()}) is deprecated. "
            "Please ensure they have the same size."
        )
    return _bce(input, target, weight, reduction)


@composite("KlDiv")
def _kl_div(input: Tensor, target: Tensor, reduction: str, log_target: bool) -> Tensor:
    if log_target:
        loss = e.exp_op(target) * (target - input)
    else:
        loss = e.xlogy(target, target) - target * input
    if reduction == "batchmean":
        return reductions.sum(loss) / float(input.shape[0])
    return _reduced(loss, reduction)


def kl_div(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:  # fmt: skip
    """The Kullback-Leibler divergence of target from exp(input)."""
    tensor_operand(input, "kl_div")
    tensor_operand(target, "kl_div")
    reduction = reduction_of(reduction, size_average, reduce, "batchmean")
    if reduction == "mean":
        warnings.warn(
            "reduction: 'mean' divides the total loss by both the batch size and the support size. 'batchmean' divides only by "
            "the batch size, and aligns with the KL div math definition.",
            stacklevel=2,
        )
    return _kl_div(input, target, reduction, log_target)


@composite("NllLoss")
def _nll(
    log_p: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    dim = 0 if log_p.ndim == 1 else 1
    classes = log_p.shape[dim]
    valid = target != ignore_index
    safe = pointwise.where(valid, target, 0)
    place = tape.apply(arrays.reshape, (safe,), (*target.shape[:dim], 1, *target.shape[dim:]))
    picked = tape.apply(arrays.reshape, (tape.apply(arrays.of_target, (log_p, place), dim),), tuple(target.shape))
    if weight is not None:
        share = pointwise.where(valid, tape.apply(arrays.index_select, (weight, safe), 0), 0.0)
    else:
        share = tape.apply(CONVERT, (valid,), log_p.dtype)
    loss = -(pointwise.where(valid, picked, 0.0) * share)
    if smoothing > 0.0:
        each = log_p
        if weight is not None:
            shape = (1,) * dim + (classes,) + (1,) * (log_p.ndim - dim - 1)
            each = log_p * tape.apply(arrays.reshape, (weight,), shape)
        spread = -tape.apply(arrays.sum, (each,), (dim,))
        spread = pointwise.where(valid, spread, 0.0)
        loss = loss * (1.0 - smoothing) + spread * (smoothing / classes)
    if reduction == "none":
        return loss
    total = reductions.sum(loss)
    return total if reduction == "sum" else total / reductions.sum(share)


def _classes(name: str, input: Tensor, target: Tensor) -> Tensor:
    """The target classes, in the shape that goes with the input; ValueError, RuntimeError for others."""
    shape, given = input._meta.shape, target._meta.shape
    if not shape:
        raise ValueError(f"{name}: expected an input of 1 or more dimensions, got a number")
    if len(shape) == 1 and given == (1,):
        target, given = tape.apply(arrays.reshape, (target,), ()), ()
    wanted = shape[:1] + shape[2:] if len(shape) > 1 else ()
    if given != wanted:
        batch = given[0] if given else 0
        if len(shape) > 1 and batch != shape[0]:
            raise ValueError(f"{name}: Expected input batch_size ({shape[0]}) to match target batch_size ({batch}).")
        alone = len(shape) == len(given) == 1 and target.dtype is int64 and (name == "nll_loss" or given != shape)
        raise (ValueError if alone else RuntimeError)(
            f"{name}: expected target of shape {list(wanted)} for input {list(shape)}, got {list(given)}"
        )
    if target.dtype is not int64:
        raise RuntimeError(f"{name}: expected scalar type Long (int64) for class targets but found {target.dtype}")
    return target


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The negative log-likelihood of the target classes; input (N, C, ...) holds log-probabilities, target (N, ...) classes."""
    tensor_operand(input, "nll_loss")
    tensor_operand(target, "nll_loss")
    reduction = reduction_of(reduction, size_average, reduce)
    return _nll(input, _classes("nll_loss", input, target), weight, ignore_index, reduction, 0.0)


@composite("CrossEntropy")
def _probability_loss(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float) -> Tensor:
    dim = 0 if input.ndim == 1 else 1
    classes = input.shape[dim]
    log_p = _log_softmax(input, dim, None)
    if smoothing > 0.0:
        target = target * (1.0 - smoothing) + smoothing / classes
    each = log_p * target
    if weight is not None:
        shape = (1,) * dim + (classes,) + (1,) * (input.ndim - dim - 1)
        each = each * tape.apply(arrays.reshape, (weight,), shape)
    loss = -tape.apply(arrays.sum, (each,), (dim,))
    if reduction == "mean":
        return reductions.sum(loss) / float(max(tape.count(loss.shape), 1))
    return _reduced(loss, reduction)


@composite("NllLoss")
def _class_loss(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore: int, reduction: str, smoothing: float
) -> Tensor:
    log_p = _log_softmax(input, 0 if input.ndim == 1 else 1, None)
    return _nll(log_p, target, weight, ignore, reduction, smoothing)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
    reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """Cross entropy of softmax(input) and target: classes (N, ...) int64, or probabilities in the input's shape (N, C, ...).

    >>> fastgrad.nn.functional.cross_entropy(fastgrad.zeros(2, 4), fastgrad.tensor([0, 3]))
    tensor(1.3863)
    """
    tensor_operand(input, "cross_entropy")
    tensor_operand(target, "cross_entropy")
    reduction = reduction_of(reduction, size_average, reduce)
    if target._meta.shape == input._meta.shape and target.dtype.is_floating_point:
        if ignore_index >= 0:
            raise RuntimeError("cross_entropy: ignore_index is not supported for floating point target")
        return _probability_loss(input, target, weight, reduction, float(label_smoothing))
    target = _classes("cross_entropy", input, target)
    return _class_loss(input, target, weight, ignore_index, reduction, float(label_smoothing))
