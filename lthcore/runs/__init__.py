"""Where and how levels are trained and kept: the store, the archive, the queue, processes and clusters."""
