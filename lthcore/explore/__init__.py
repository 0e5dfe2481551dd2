"""Widgets over finished results, and what the notebooks share."""
