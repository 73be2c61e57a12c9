"""A model run dense and sparse over the same volumes, side by side: times, agreement, equivalence."""

from nansparse.comparison.cases import Case, find_cases
from nansparse.comparison.volume import Comparison, compare_case
from nansparse.comparison.ways import BASELINES, WayPlan, read_policy

__all__ = ["BASELINES", "Case", "Comparison", "WayPlan", "compare_case", "find_cases", "read_policy"]
