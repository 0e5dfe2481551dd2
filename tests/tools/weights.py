"""Train again, and commit, the final weights with which the explorer starts: python tests/tools/weights.py

Of the first replicate of the MLP and of LeNet-5: the dense network and, at two levels that have controls, the ticket,
the reinitialised network and the random mask.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

LEVELS = {"mlp": (5, 9), "lenet5": (5, 13)}  # B and L of the report's claims


def tasks():
    """The networks: list of (Unit, int)."""
    from lthcore.studies import experiments

    out = []
    for name, levels in LEVELS.items():
        study = experiments.study(name, "report")
        for level in levels:
            out += experiments.rivals(study, study.units[0], level).values()
    return list(dict.fromkeys(out))


if __name__ == "__main__":
    from lthcore.runs import committed, sweep

    sweep.weights(tasks())
    for written in committed.write(tasks()):
        print(written, f"{written.stat().st_size:,} bytes")
