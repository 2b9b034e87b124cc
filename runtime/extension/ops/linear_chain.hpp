#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <openvino/core/node.hpp>
#include <string>
#include <vector>

#include "kernels/aligned.hpp"
#include "kernels/kernels.hpp"
#include "ops/stages.hpp"

namespace dynamic_tinybert {

/// Consecutive 8-bit linear layers with GELU between them; optionally a residual and LayerNorm after the last one.
/// Their constants are an i8 vector, which QuantizedLinears describes.
struct LinearChain {
    std::vector<int64_t> widths;       ///< Number of outputs of each layer.
    std::vector<float> zero_points;    ///< For each layer, the quantised value that stands for 0 in its input rows.
    bool normalizes = false;           ///< Whether a residual is added and LayerNorm follows.
    float epsilon = 1e-12f;            ///< Added to the variance.
    std::string isa;                   ///< Instruction set for which the weights are packed; "any" if they are not.
    std::vector<int64_t> weight_bytes; ///< Size of each layer's weights as they are given.
    const Kernels* kernels = nullptr;  ///< Of `isa`; `check` sets it.

    /// Whether the weights must be packed before they are used.
    bool packs() const { return isa == "any"; }
    /// Number of bytes of all constants, for rows of this depth.
    size_t size_of_constants(size_t depth, bool quantizes) const;
    /// Refuses a chain that cannot be computed on rows of this depth, or not on this CPU.
    /// quantizes: whether the rows are f32. constants: their shape.
    void check(const char* op, size_t depth, bool quantizes, const ov::PartialShape& constants);
};

/// A chain with its constants, as kernels take them.
struct BoundChain {
    const Kernels* kernels;
    size_t depth;            ///< Width of its input rows.
    const float* inv_scale;  ///< 1 / scale of each column of input rows in f32, [depth]; null for rows in u8.
    float zero_point;        ///< Zero point of the input rows.
    std::vector<Linear> linears;
    bool normalizes;
    Normalization normalization;

    size_t width() const { return linears.back().width; }
};

/// The rows that a chain computes, dense.
struct ChainRows {
    const float* floats;     ///< Input rows [count, depth]; null if they are quantised.
    const uint8_t* levels;   ///< Input rows that are quantised, [count, depth]; else null.
    const float* added;      ///< The residual, [count, width]; null if the chain does not normalise.
    float* result;           ///< [count, width]
    size_t count;
};

/// The constants of a chain, with the weights packed at the first call where they are not packed yet.
class ChainConstants {
public:
    /// constants: the vector as it is given. node: the node that gives it, a Constant if the chain packs.
    BoundChain bind(const LinearChain& chain, size_t depth, bool quantizes, const int8_t* constants,
                    const ov::Node& node) const;

private:
    struct Repacked {
        Aligned<int8_t> weights;
        std::vector<int64_t> bytes;  // of each layer
        Aligned<float> numbers;      // in a file they may lie anywhere
    };

    const Repacked& repacked(const LinearChain& chain, size_t depth, const ov::Node& node) const;

    mutable std::once_flag m_first_call;
    mutable Repacked m_repacked;  // after the first call, if the chain packs
};

/// Buffers of quantised rows: a product reads one while it writes the other.
using LevelBuffers = std::array<std::vector<uint8_t>, 2>;

/// A chain and its rows.
struct ChainTask {
    const BoundChain* chain;
    ChainRows rows;
};

/// Whether so few rows are computed that waking other threads takes longer.
bool is_worth_one_thread(const BoundChain& chain, size_t rows);

/// Makes room for a chain's rows. It comes before `add_chains`, for all chains whose stages share the buffers.
void make_room(LevelBuffers& buffers, const BoundChain& chain, size_t rows);

/// Adds stages that compute chains of the same number of rows, each of which may read what those before it wrote to the
/// same rows. If there are enough rows for all threads, each row goes through all chains on one thread; else threads
/// share the columns of each product. The buffers must outlive the stages; others that follow may share them.
void add_chains(Stages& stages, const std::vector<ChainTask>& tasks, LevelBuffers& buffers);

}  // namespace dynamic_tinybert
