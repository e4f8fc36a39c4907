"""What a captured call reads of Python's state: the function rewritten, its reads noted, and their check.

`sources` finds a function's syntax tree, `rewrite` redirects its reads to `hooks`, which note them in a `watch.Watch`: attributes by
`attributes`, calls by `calls`, numbers by `numbers`. `known` says what is known of code that is not the user's.
"""
