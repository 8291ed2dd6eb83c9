"""Small things that sentences need."""


def capital(words: str) -> str:
    """The words with a capital to begin with, the rest as it is."""
    return words[:1].upper() + words[1:]


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 finding", "1,200 findings"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
