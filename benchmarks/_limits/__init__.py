"""The parts of `benchmarks/limits.py`: each adds its tables and claims to the report."""
