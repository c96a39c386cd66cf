"""Computing records anew: the same numbers to the bit, or as far off as rounding explains, or neither."""
