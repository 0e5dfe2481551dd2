"""Take replicates that were trained in another checkout into the archive of this one.

Run ``python tests/tools/take.py OTHER/figures/archive mlp task1``: of each experiment named, the packs of the preset
``report`` that are complete there and missing here. One that is not what it should be is named, and nothing is taken.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lthcore.runs import archive  # noqa: E402
from lthcore.studies import experiments  # noqa: E402


def main(other, names):
    """Take the packs of these experiments: exit status."""
    other = Path(other)
    units = []
    for name in names:
        there = [int(path.stem[1:]) for path in (other / name).glob("r*.zip")]
        if not there:
            print(f"{other / name} has no packs")
            return 1
        units += experiments.study(name, "report", replicates=1 + max(there)).units
    try:
        taken = archive.take(other, units)
    except ValueError as error:
        print(error)
        return 1
    for path in taken:
        print(f"taken: {path}")
    print(f"{len(taken)} packs taken")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
