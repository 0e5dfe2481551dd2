"""From tidy tables to numbers, intervals, figures and verdicts. No torch."""
