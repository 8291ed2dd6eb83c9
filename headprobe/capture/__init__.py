"""Taking attention probabilities from a model while it runs: the only room that sees a forward pass."""

from headprobe.capture.observer import Observer, observing

__all__ = ["Observer", "observing"]
