"""`make bench`: what `mpserve bench` measures, written into README.md and docs/benchmarks.md."""
