"""The data path: a DPDK binding, devices, and a TCP stack compiled by numba. Knows nothing of handlers or applications."""
