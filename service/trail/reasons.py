"""What is told of a failure of the trail to whoever calls the service."""


def brief(why: str) -> str:
    """What a caller is told of a failure: not where the database is, nor what it says."""
    text = why.lower()
    for found, told in (
        ("full", "the disk is full"),
        ("no space", "the disk is full"),
        ("lock", "the database is locked"),
        ("readonly", "the database cannot be written"),
        ("nothing was written", why),
        ("started anew", why),
        ("newer version", "a newer version of this service has written it"),
    ):
        if found in text:
            return told
    return "the database does not answer, or fails"
