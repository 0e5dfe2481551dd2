"""Files that are written atomically and read with their checksums; all other folders write and read by these."""
