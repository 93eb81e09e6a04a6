"""Selective scans over sequences and images, usable without the networks. Imports torch and errors only."""

from .orders import SCANS, Strides, direction_count, index_table, strides
from .selective_scan import directional_scan, explain, selective_scan

__all__ = [
    "SCANS",
    "Strides",
    "direction_count",
    "directional_scan",
    "explain",
    "index_table",
    "selective_scan",
    "strides",
]
