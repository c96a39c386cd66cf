"""Readers of data sets: rows in batches, in bounded memory, from JSON, NDJSON, CSV and Parquet."""
