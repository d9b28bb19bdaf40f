"""Combinations: how the gradient at theta and the gradient at theta + eps make one update. Pure mathematics."""

from msam.combine.linear import Combination, Replace, ShareWeighted

__all__ = ["Combination", "Replace", "ShareWeighted"]
