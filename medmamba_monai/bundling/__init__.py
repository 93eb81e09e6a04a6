"""Bundles: rendering configs/ into bundles/, and the small helpers the bundle configs call at run time.

Nothing is imported here, so that ``python -m medmamba_monai bundle build`` does not wait for MONAI.
May import handlers, engines, data, metrics, networks and errors.
"""
