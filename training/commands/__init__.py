"""The commands of `chainzrule-train`, a file each."""
