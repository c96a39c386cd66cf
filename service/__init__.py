"""From bundles to predictions with their sensitivity, over HTTP. Never imports torch."""
