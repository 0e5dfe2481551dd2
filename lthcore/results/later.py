"""The modules of this folder, each imported when it is first used. Standard library only.

The records of the studies name their figures and claims, and are read where no package is installed.
"""

import importlib


class Later:
    """A module of this folder."""

    def __init__(self, name):
        self._module = f"{__package__}.{name}"

    def __getattr__(self, name):
        return getattr(importlib.import_module(self._module), name)


declared = Later("declared")
figures = Later("figures")
measures = Later("measures")
statistics = Later("statistics")
verdicts = Later("verdicts")
