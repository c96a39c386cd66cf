"""What each section of a report says: numbers and words, worked out from the manifest and the material."""
