"""Times of the C++ ops and kernels, compared with the CPU's limits."""
