"""A folder of evidence: what an auditor may be given of a model and its trail, and what each part of it speaks to."""
