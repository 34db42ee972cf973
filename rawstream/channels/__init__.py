"""Channels and runs: one log, many readers, nothing lost without a word.

A channel is a log, a subscriber is a cursor, a run is a generator that fills a channel.
"""

from .channel import Channel
from .hub import Hub
from .log import Retention
from .runs import Run

__all__ = ["Channel", "Hub", "Retention", "Run"]
