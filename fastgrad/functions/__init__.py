"""PyTorch's functions, written with recorded operations: what `fastgrad.*` and the methods of Tensor call.

One file a subject: `pointwise`, `reductions`, `shapes`, `indexing`, `products`, `creation`, `in_place`.
"""
