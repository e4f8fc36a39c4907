"""Programs that are not expected back: recorded as flat integers, walked and lowered by compiled passes.

A trace whose predecessors were all new is a `Draft` instead of a path in the trace cache. `kinds` knows what can stand in one
(and has the templates for its gradient and its records, made once by running the ordinary rules and the ordinary assembler),
`draft` is the tape itself, `run` ends it. What a draft can't hold turns it into a path of nodes (`unfold`), and all goes on as
for any other trace.
"""

from . import run

__all__ = ["run"]
