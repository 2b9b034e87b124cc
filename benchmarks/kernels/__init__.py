"""What the C++ ops and kernels take, beside what the CPU could do at best."""
