"""The calls for people and applications."""
