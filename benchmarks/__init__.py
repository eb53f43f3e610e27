"""Timed claims: each module runs as `python -m benchmarks.NAME --json` and prints one JSON object."""
