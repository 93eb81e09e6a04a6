"""Selective scans over sequences and images."""
