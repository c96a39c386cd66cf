"""What a ChainzRule model is. Import from the modules: half of them, marked so, need no torch."""
