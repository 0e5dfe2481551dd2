"""How the report's claims are judged: quantities, rules fixed before the data that decide them, verdicts. No torch.

A rule is written down before its *confirmatory* replicates are analysed and is not changed after. The replicates
that chose its levels are *exploratory*: their estimates are shown beside the verdict and decide nothing. Any three or
more other replicates are judged, also those of another seed; the first `DECIDING` of them give the verdict, later ones
a second look. Intervals are over replicates; the sampling of the test images is not in them.

    measures     what is measured, what a claim compares, what a rule is
    declared     the table of the report's claims
    judging      how a rule is judged
"""

from .declared import BEYOND_95, CLIFF, COMMIT, NAMED, REPORT, B, L
from .judging import (
    COLUMNS,
    EXPLORATORY,
    FAMILY,
    HOLDS,
    NOT_AFTER_HOLM,
    REFUTED,
    UNRESOLVED,
    Outcome,
    adjusted,
    another,
    combine,
    constant,
    decide,
    holm,
    judge,
    needed,
    plain,
)  # fmt: skip
from .measures import (
    COUNTS,
    DECIDING,
    FEWEST,
    KEYS,
    LEVEL,
    QUANTITIES,
    Comparison,
    Quantity,
    Rule,
    at_one_class,
    declare_levels,
    gap,
    last_fifth,
    steps_to,
)  # fmt: skip

__all__ = [
    "BEYOND_95", "CLIFF", "COLUMNS", "COMMIT", "COUNTS", "DECIDING", "EXPLORATORY", "FAMILY", "FEWEST", "HOLDS",
    "KEYS", "LEVEL", "NAMED", "NOT_AFTER_HOLM", "QUANTITIES", "REFUTED", "REPORT", "UNRESOLVED", "B", "Comparison", "L",
    "Outcome", "Quantity", "Rule", "adjusted", "another", "at_one_class", "combine", "constant", "decide",
    "declare_levels", "gap", "holm", "judge", "last_fifth", "needed", "plain", "steps_to",
]  # fmt: skip
