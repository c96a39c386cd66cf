"""Where tables come from: a file a source."""
