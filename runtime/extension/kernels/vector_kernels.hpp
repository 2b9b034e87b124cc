#pragma once
// What a file of one instruction set needs before its target pragma: whatever is compiled behind it may run only where
// the instruction set is there, so no inline function that other files share may stand behind it.

#pragma GCC diagnostic ignored "-Wuninitialized"  // GCC 12 warns of its own header
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
