"""Device kernels of the Triton backend, one concept a file. Only triton.py imports them, and only when it runs."""
