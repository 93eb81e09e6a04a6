"""Measurements that docs/benchmarks reports: ``python -m medmamba_monai.benchmarks NAME``. Nothing imports this."""
