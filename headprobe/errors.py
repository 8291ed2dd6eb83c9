"""What can go wrong, as one sentence for the user and one exit code for their script."""

from collections.abc import Iterable
from difflib import get_close_matches


class HeadprobeError(Exception):
    """Something headprobe expected could go wrong: told in one line, never as a traceback.

    `code` is the stable short name printed in brackets (`E-PATH`), `problem` says what is wrong and where, with
    numbers, `hint` says what to do. `exit_code` is fixed by the class.
    """

    exit_code = 3

    def __init__(self, code: str, problem: str, hint: str = "") -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        """The line without the program's name: `error[E-PATH]: no folder at ./x. Give a folder or a hub name.`"""
        sentence = self.problem if self.problem.endswith((".", "?", "!")) else f"{self.problem}."
        return printable(f"error[{self.code}]: {sentence} {self.hint}".rstrip())


class UsageError(HeadprobeError):
    """Wrong option, argument or configuration: fix the command."""

    exit_code = 2


class InputError(HeadprobeError):
    """The model or the texts can't be analysed: fix the artefact."""

    exit_code = 3


class EnvironmentFailure(HeadprobeError):
    """Network, sign-in, missing package, memory or disk: fix the machine or try again."""

    exit_code = 4


class RefusedError(HeadprobeError):
    """Refused for safety: a person has to decide."""

    exit_code = 5


MOST_WORDS = 60  # a longer list helps nobody


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint that names the nearest valid words, or all of them where none is near."""
    words = sorted(set(valid))
    close = get_close_matches(word, words, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return f"Valid: {', '.join(words)}." if len(words) <= MOST_WORDS else ""


def printable(text: str) -> str:
    """`text` on one line with nothing in it that a terminal would obey.

    Names of models, files and tensors are untrusted: control characters (line breaks and escape sequences among
    them), bidirectional marks and zero-width characters become visible escapes.
    """
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")
