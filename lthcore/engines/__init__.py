"""What trains: loops over batches, for one replicate on a CPU or many on a GPU."""
