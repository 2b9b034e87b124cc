#pragma once
// All headers that a file of one instruction set needs, to be included before its target pragma. Code after the pragma
// may only run where the CPU has the instruction set, so no inline function that other files share may be compiled
// there.

#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns about its own header
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <utility>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/f32_avx2.hpp"
#include "kernels/kernels.hpp"
#include "kernels/packing.hpp"
