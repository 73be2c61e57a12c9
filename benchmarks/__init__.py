"""Measurements of nansparse: `python -m benchmarks --help`.

Measuring, storing and rendering are kept apart.
"""
