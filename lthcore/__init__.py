"""The Lottery Ticket Hypothesis on MNIST: prune, rewind, train and judge.

Rooms, top to bottom (a module imports only from rooms below it)::

    __main__     python -m lthcore
    cli          the command line: one sweep, then every notebook      stdlib only
    explorer     widgets over finished results
    pages        the explorer's pictures                               no torch
    plots        tidy frame -> figure                                 no torch
    experiments  the report's experiments: arms, data, recipes
    takes        which settings an experiment takes                   stdlib only
    claims       the report's claims, measured and judged            no torch
    rules        how they are judged: fixed before the data are seen  no torch
    results      tidy frames, intervals, summaries                    no torch
    sweep        units -> futures: one queue for all experiments
    limits       processors and memory, a container's too             stdlib only
    cluster      the workers of a Dask cluster, as that queue's executor
    travel       a ticket as a file, in four forms, and back        no torch
    store        where a run lives on disk
    gpu          a GPU's self-check, its memory, its errors
    lottery      the train-prune-rewind loop                          no disk
    train        train one network under a mask                       no disk
    lockstep     replicates with a leading axis, for a GPU
    sparse       the same on the surviving weights only, compiled
    compiled     what numba compiles, kept in a cache that may be lost      no torch
    pruning      masks, criteria, controls, collapse diagnosis
    models       plain networks
    data         MNIST as tensors; halves, label sets, validation
    files        atomic writes, what a kill must not leave            stdlib only
    notebooks    what they share: checkout, parameters, errors, foreign copies   no torch
    config       settings, presets, units, identities                 stdlib only
    methods      criteria and rewind rules, and what each needs      no torch
"""

__version__ = "0.1.0"
