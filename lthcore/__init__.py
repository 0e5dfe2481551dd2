"""The Lottery Ticket Hypothesis on MNIST: prune, rewind, train and judge.

The core, which knows no disk, no processes and no plots::

    lottery      the train-prune-rewind loop
    train        train one network, or replicates together, under masks
    pruning      masks, criteria, controls
    methods      criteria, rewind rules and data sets, by name
    models       plain networks
    data         MNIST as tensors; halves, label sets, validation
    config       settings, in four groups
    unit         what is trained, its identity, the seed of every draw
    schedule     weights kept at each level; architectures by their shapes

Around it, from the bottom up; a folder imports from those below it::

    disk         files that are written atomically and read with their checksums
    engines      what trains: sparse and compiled on a CPU, replicates together on a GPU
    probes       what is measured on a trained network: collapse, linear path, deletion, filters, curvature
    tickets      a ticket as a file, in four forms, and back
    runs         presets, the store, the archive, the queue, processes, clusters, the GPU's check
    results      tables, intervals, rules and verdicts
    studies      the experiments: their arms, settings, claims and figures
    explore      widgets, their pictures, what the notebooks share
    cli          the command line, python -m lthcore
"""

import importlib

from . import studies as studies  # which registers the experiments
from .explore import notebooks as notebooks  # which checks a notebook's parameters when a study is requested

__version__ = "0.1.0"

_MOVED = {  # names that users may have typed before the package had folders
    "claims": "studies.claims",
    "experiments": "studies.experiments",
    "explorer": "explore.explorer",
    "plots": "studies.plots",
    "store": "runs.store",
    "sweep": "runs.sweep",
    "travel": "tickets",
}


def __getattr__(name):
    if name in _MOVED:
        return importlib.import_module(f"lthcore.{_MOVED[name]}")
    raise AttributeError(f"module 'lthcore' has no attribute {name!r}")
