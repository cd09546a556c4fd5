"""Known and justified differences between Debian's nginx and nxr: the only list of exceptions.

An entry names a case and a field of it ("client", "backend NAME", "access.log", "error.log", "exit code", "standard
error") and gives the reason. `sub` is (pattern, replacement): applied to the text nginx gave, it must yield exactly
what nxr gave. Without `sub` the whole field is excused. An entry that no longer explains anything fails the run.
"""

import collections

Difference = collections.namedtuple("Difference", "case field reason sub")
Difference.__new__.__defaults__ = (None,)

DIFFERENCES = [
]
