"""Pages for people: one file each, without scripts and without a network. Needs the extra [report]."""
