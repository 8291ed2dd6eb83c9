"""What a model is run on: one file for each kind of input, told apart by what the model's forward takes."""

from headprobe.feed.choose import feed
from headprobe.feed.contract import Feed, Given

__all__ = ["Feed", "Given", "feed"]
