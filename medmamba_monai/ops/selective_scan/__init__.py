"""The selective scan: contract, readable reference, backends, dispatch. Imports torch and errors only."""

from .dispatch import explain
from .functional import directional_scan, selective_scan

__all__ = ["directional_scan", "explain", "selective_scan"]
