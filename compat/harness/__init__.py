"""Runs one configuration under nginx and under nxr and compares all that can be observed."""

from .backends import CLOSE, ECHO, RESET, ok, reply
from .suite import CheckSuite, Suite

__all__ = ["CLOSE", "ECHO", "RESET", "CheckSuite", "Suite", "ok", "reply"]
