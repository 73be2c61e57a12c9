"""Judging results: agreement of label maps."""

from nansparse.evaluation.metrics import dice, disagreeing

__all__ = ["dice", "disagreeing"]
