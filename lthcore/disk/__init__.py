"""Files that neither a kill nor damage can turn into something else: what everything above writes and reads by."""
