"""PyTorch's functions, written with recorded operations: what `fastgrad.*` and the methods of Tensor call.

One file a subject: `pointwise`, `reductions`, `shapes`, `indexing` (`x[...]`), `positions`, `order`, `products`, `creation`, `random`, `in_place`.
"""
