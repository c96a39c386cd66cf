"""The calls of the REST API, a file a group."""
