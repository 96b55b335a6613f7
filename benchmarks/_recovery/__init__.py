"""The parts of `benchmarks/pde_recovery.py`: each adds its tables and claims to the report."""
