"""The operation table: every operation is declared here once.

`symbol` reads rules as text, `table` holds the rows' classes, `elementwise` and `arrays` the rows themselves.
"""
