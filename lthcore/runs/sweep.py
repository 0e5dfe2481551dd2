"""Training what is missing, under one name: what the notebooks, the command line and a user's own code call.

plan         which levels are missing, who waits for whom, shards
estimate     how long a level takes here
processes    how many processes, how they start and end
worker       what each does: train a level and keep it
queue        which level is trained when
"""

from .estimate import seconds_per_level
from .plan import Plan, all_finished, shard
from .processes import Background, default_workers, resolve
from .queue import RETRIES, duration, run, weights
from .worker import keep_weights, mask_at, run_levels, ticket

__all__ = [
    "RETRIES", "Background", "Plan", "all_finished", "default_workers", "duration", "keep_weights", "mask_at",
    "resolve", "run", "run_levels", "seconds_per_level", "shard", "ticket", "weights",
]  # fmt: skip
