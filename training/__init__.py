"""From data to a bundle."""
