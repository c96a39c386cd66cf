"""report.html: what a person wants to see of a model, in one file."""
