"""Every setting in every experiment, and pairs of them: python tests/tools/settings.py > tests/tools/settings.log

Each set of settings is refused in one line before anything is trained, or trained for a few steps, read, judged, drawn
and looked at in the explorer. Those of the second part hold every pair that an experiment takes together at least once.
Both parts of all experiments take hours: ``--part`` and names of experiments choose among them. Levels go into a folder
that is removed at the end.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main():
    """Run what is asked for; returns the exit status: 1 where anything failed."""
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    p.add_argument("--part", choices=["every", "pairs"], help="every setting, or pairs; default: both")
    p.add_argument("experiments", nargs="*", help="default: all")
    options = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"LTH_RUNS": f"{folder}/runs", "LTH_ARCHIVE": f"{folder}/archive", "MPLBACKEND": "agg"}
        import torch
        from helpers import HERE, SETTINGS, covering, values_of

        from lthcore.runs import store

        torch.set_num_threads(1)
        store.FIGURES = Path(folder) / "figures"
        failed = 0
        for experiment in options.experiments or HERE:
            if options.part != "pairs":
                every = [settings for name in SETTINGS for settings in values_of(experiment, "smoke", name)]
                failed += part(f"{experiment}, every setting", experiment, every)
            if options.part != "every":
                sets, refused = covering(experiment, "smoke")
                pairs = ", ".join("+".join(pair) for pair in refused)
                failed += part(f"{experiment}, pairs ({len(refused)} refused: {pairs})", experiment, sets)
    return int(failed > 0)


def part(title, experiment, sets):
    """Ask for each set of settings and run what is taken: how many failed."""
    from helpers import ask, few, read_everything, train

    started, failed, taken, without = time.monotonic(), 0, 0, 0
    print(f"== {title}", flush=True)
    for settings in sets:
        study = ask(experiment, "smoke", few(experiment) | settings)
        if isinstance(study, str):
            print(f"refused  {settings}: {study.split(', which takes')[0]}", flush=True)
            continue
        try:
            read_everything(train(study), settings)
            taken += 1
            print(f"works    {settings}", flush=True)
        except Exception as error:
            if str(error).startswith("no source has"):  # CIFAR-10, where neither a mirror nor a file is in reach
                without += 1
                print(f"no data  {settings}", flush=True)
                continue
            failed += 1
            print(f"FAILED   {settings}\n{traceback.format_exc(limit=-3)}", flush=True)
    counts = f"{len(sets)} asked, {taken} work, {failed} failed, {without} without data"
    print(f"-- {counts}, {time.monotonic() - started:.0f} s", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
