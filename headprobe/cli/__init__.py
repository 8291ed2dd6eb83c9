"""The command line: options into words, one call into the library, an exit code. Heavy imports stay inside commands."""

from headprobe.cli.handler import main

__all__ = ["main"]
