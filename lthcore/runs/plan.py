"""What there is to do for some units: which levels are missing, who waits for whom, and how it is shared out."""

import itertools
from bisect import insort
from heapq import heappop, heappush

from . import estimate, gpu, store

STEPS = 1000  # of training: about as long as it takes to start a process


class Plan:
    """What there is to do for some units: their levels, which are finished, and who waits for whom.

    Parameters
    ----------
    units : list of Unit
        The chains whose masks they take are added.
    device : {"cpu", "cuda"}
        Where they would be trained, for estimates.
    """

    def __init__(self, units, device="cpu"):
        self.device, self.free = device, None  # bytes of the GPU's memory, once they are known, a process
        self.units = with_chains(units)
        self.tasks = [(unit, level) for unit in self.units for level in unit.levels]
        self.found = _finished_levels(self.units)
        self.missing = [task for task in self.tasks if task not in self.found]
        self.waits_for = {
            task: before for task in self.missing if (before := task[0].needs(task[1])) and before not in self.found
        }
        self.followers = {}
        for task, before in self.waits_for.items():
            self.followers.setdefault(before, []).append(task)
        self.first = {}  # training -> the first of the tasks that share it
        for task in self.missing:
            self.first.setdefault(training(task), task)

    def cost(self, task):
        """Seconds that a level takes on this machine, on one core or alone on the GPU, from a few steps of its kind."""
        shared = self.first.get(training(task), task) != task
        try:
            return estimate.OVERHEAD if shared else estimate.seconds_per_level(*task, self.device)
        except gpu.Lost:  # it will be trained on the CPU then
            self.device = "cpu"
            return self.cost(task)

    def remaining(self):
        """Seconds of the longest chain of missing levels that begins at a task: dict, task -> float."""
        way = {}
        for task in reversed(self._ordered()):
            way[task] = self.cost(task) + max((way[t] for t in self.followers.get(task, ())), default=0)
        return way

    def _ordered(self):
        """The missing tasks, each after the one it waits for."""
        out = [task for task in self.missing if task not in self.waits_for]
        for task in out:  # grows while it is read
            out += self.followers.get(task, ())
        return out

    def worth(self):
        """How many processes it pays to start for the missing levels, at most: int, from 1 on."""
        steps = sum(unit.config.at(level).steps for unit, level in self.first.values())
        return max(1, steps // STEPS)

    def seconds(self, workers):
        """Estimated wall time with so many processes: float, by simulating the queue."""
        way, clock, busy, begun = self.remaining(), 0.0, [], itertools.count()
        ready = sorted((task for task in self.missing if task not in self.waits_for), key=way.get)
        while ready or busy:
            while ready and len(busy) < workers:
                task = ready.pop()
                heappush(busy, (clock + self.cost(task), next(begun), task))
            clock, _, task = heappop(busy)
            for follower in self.followers.get(task, ()):
                insort(ready, follower, key=way.get)
        return clock


def with_chains(units):
    """The units and the chains whose masks they take: list of Unit."""
    return list(dict.fromkeys([u.chain for u in units if not u.prunes] + list(units)))


def shard(units, place, of):
    """The units of one of several shards, which need nothing of one another and may run at any time, anywhere.

    Chains that share a dense network stay together, and with them the arms that take their masks. The largest such
    group goes first, to the shard that has the fewest levels: a pure function of the units, whatever is finished.

    Parameters
    ----------
    units : list of Unit
    place, of : int
        Which shard, from 1 on, of how many.

    Returns
    -------
    list of Unit
    """
    groups = {}
    for unit in units:
        groups.setdefault(unit.chain.dense, []).append(unit)
    shards, loads = [[] for _ in range(of)], [(0, k) for k in range(of)]
    sizes = {dense: sum(len(unit.levels) for unit in group) for dense, group in groups.items()}
    for dense in sorted(sizes, key=sizes.get, reverse=True):
        load, k = heappop(loads)
        heappush(loads, (load + sizes[dense], k))
        shards[k] += groups[dense]
    return shards[place - 1]


def finished(unit, level, later=()):
    """The finished level, or None; in a chain it is not finished without what the next level still needs of it.

    Parameters
    ----------
    later : collection of (Unit, int)
        Finished levels after this one, where these have been looked up.
    """
    found = store.find_level(unit, level)
    if not found or not unit.prunes or level == unit.levels[-1]:
        return found
    if not found.has_mask(unit.config.model):
        return None
    if not unit.continues or store.find_weights(unit, level):
        return found
    after = unit, unit.levels[unit.levels.index(level) + 1]
    return found if after in later or (not later and finished(*after)) else None


def _finished_levels(units):
    """The finished levels of units, each looked up once: set of (Unit, int)."""
    out = set()
    for unit in units:
        later = set()
        for level in reversed(unit.levels):
            if finished(unit, level, later or {None}):
                later.add((unit, level))
        out |= later
    return out


def all_finished(units):
    """Whether these units are finished: bool. It stops at the first level that is missing."""
    return all(finished(unit, level) for unit in units for level in unit.levels)


def training(task):
    """What a level's training depends on: the same for the dense networks of chains that only prune otherwise."""
    unit, level = task
    return unit.dense if level == 0 and unit.prunes else task
