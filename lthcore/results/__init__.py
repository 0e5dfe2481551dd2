"""From tidy tables to numbers, intervals and verdicts. No torch."""
