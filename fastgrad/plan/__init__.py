"""From a trace to a program: small passes over the entries of a tape.

`section` gathers the entries that are needed, `simplify` drops what need not be computed twice, `roll` finds stretches that
repeat (over the arrays of `columns`), `group` collects elementwise entries into loops, `assemble` places buffers and writes
records (`repeat` those of stretches that repeat), `program` holds the result. Nothing here knows Tensors.
"""
