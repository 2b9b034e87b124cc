#include "ops/linear_chain.hpp"

#include <tbb/task_arena.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <openvino/op/constant.hpp>
#include <utility>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/memory.hpp"
#include "ops/rows.hpp"
#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {
namespace {

constexpr size_t products_worth_a_thread = 256 * 1024;  // with fewer, waking a thread takes longer than computing them
constexpr size_t tasks_for_a_thread = 3;  // at least, so that others can take over from a thread that is late or slow
constexpr size_t fewest_rows = 24;        // of a task, which reads a whole panel of the weights

/// Least number of bytes that the weights of a layer take: packed ones take more than their panels on some CPUs.
size_t least_bytes(size_t width, size_t depth, bool packed) {
    return (packed ? panels_of(width) * panel_columns : width) * depth;
}

/// Computes a layer for all rows. A task is one panel of the weights for all rows or, if there are too few panels, for
/// a block of the rows.
void multiply(const LinearKernels& kernels, const Linear& linear, const uint8_t* from, size_t rows, float* result,
              uint8_t* quantized) {
    const size_t panels = panels_of(linear.width);
    const bool alone = rows * linear.depth * linear.width < 2 * products_worth_a_thread;
    const size_t threads = alone ? 1 : static_cast<size_t>(tbb::this_task_arena::max_concurrency());
    const size_t wanted = threads == 1 ? 1 : (tasks_for_a_thread * threads + panels - 1) / panels;
    const size_t blocks = std::max<size_t>(1, std::min(wanted, rows / fewest_rows));
    const size_t block = (rows + blocks - 1) / blocks;
    const auto compute = [&](size_t first_task, size_t end) {
        for (size_t task = first_task; task < end; ++task) {
            const size_t first = std::min(rows, task % blocks * block), at = first * linear.width;
            kernels.multiply_panel(linear, from + first * linear.depth, std::min(block, rows - first), task / blocks,
                                   result ? result + at : nullptr, quantized ? quantized + at : nullptr);
        }
    };
    if (threads == 1)
        compute(0, panels * blocks);
    else
        share_tasks(panels * blocks, 1, compute);
}

}  // namespace

size_t LinearChain::size_of_constants(size_t depth, bool quantizes) const {
    size_t weights = 0, floats = quantizes ? depth : 0;
    for (size_t product = 0; product < widths.size(); ++product) {
        const size_t width = widths[product], least = least_bytes(width, depth, !packs());
        weights += std::max<size_t>(weight_bytes[product], least);
        floats += (product + 1 < widths.size() ? 3 : 2) * width;
        depth = width;
    }
    return weights + (floats + (normalizes ? 2 * depth : 0)) * sizeof(float);
}

void LinearChain::check(const char* op, size_t depth, bool quantizes, const ov::PartialShape& constants) {
    OPENVINO_ASSERT(!widths.empty() && zero_points.size() == widths.size(), op, ": ", widths.size(), " widths and ",
                    zero_points.size(), " zero points; give one of each for every product");
    for (float zero_point : zero_points)
        OPENVINO_ASSERT(zero_point >= 0.0f && zero_point <= 255.0f, op, ": zero point ", zero_point,
                        " is outside 0 ... 255");
    check_size(op, "the number of products", widths.size(), largest_size);
    for (size_t product = 0; product < widths.size(); ++product) {
        OPENVINO_ASSERT(widths[product] > 0 && (product + 1 == widths.size() || widths[product] % depth_step == 0), op,
                        ": width ", widths[product], " of product ", product,
                        " must be at least 1 and, before another product, a multiple of ", depth_step);
        check_size(op, "a width", widths[product], largest_size);
    }
    OPENVINO_ASSERT(epsilon >= 0.0f, op, ": epsilon ", epsilon, " must be at least 0");
    OPENVINO_ASSERT(depth > 0 && depth % depth_step == 0, op, ": rows of ", depth, " numbers; give a multiple of ",
                    depth_step);
    check_size(op, "the width of the rows", depth, largest_size);
    OPENVINO_ASSERT(weight_bytes.size() == widths.size(), op, ": ", widths.size(), " widths and ", weight_bytes.size(),
                    " sizes of weights; give one of each for every product");
    for (int64_t given : weight_bytes)
        OPENVINO_ASSERT(given >= 0 && given <= largest_size * largest_size, op, ": weights take ", given,
                        " bytes; at most ", largest_size * largest_size, " are allowed");
    const size_t bytes = size_of_constants(depth, quantizes);
    OPENVINO_ASSERT(constants.compatible(ov::Shape{bytes}), op, ": the constants have shape ", constants,
                    " where these widths on rows of ", depth, " need [", bytes, "]");
    for (size_t product = 0; product < widths.size(); depth = widths[product++]) {
        const size_t given = weight_bytes[product], least = least_bytes(widths[product], depth, !packs());
        if (packs())
            OPENVINO_ASSERT(given == least, op, ": the weights of product ", product, " take ", given,
                            " bytes; without being packed they must take ", least);
        else
            OPENVINO_ASSERT(given >= least && given % 64 == 0, op, ": the weights of product ", product, " take ",
                            given, " bytes; pack them, which gives a multiple of 64, at least ", least);
    }
    if (!kernels)
        kernels = packs() ? &choose_kernels() : runnable_kernels(isa);
    OPENVINO_ASSERT(kernels, op, ": the weights are packed for '", isa,
                    "', which this CPU cannot run; pack them here, for one of: ", runnable_isas());
}

size_t BoundChain::inner_width() const {
    size_t widest = inv_scale ? depth : 0;
    for (size_t product = 0; product + 1 < linears.size(); ++product)
        widest = std::max(widest, linears[product].width);
    return widest;
}

/// The constants for rows of this depth, with the weights packed for the kernels at the first call.
const ChainConstants::Repacked& ChainConstants::repacked(const LinearChain& chain, size_t depth,
                                                         const ov::Node& node) const {
    std::call_once(m_first_call, [&] {
        const auto* constants = ov::as_type<const ov::op::v0::Constant>(&node);
        OPENVINO_ASSERT(constants, "the constants are no longer a Constant");
        const LinearKernels& kernels = *chain.kernels->linear_int8;
        const int8_t* weights = constants->get_data_ptr<int8_t>();
        std::vector<int64_t> bytes;
        const auto for_layers = [&](const auto& visit) {
            const int8_t* of_layer = weights;
            for (size_t product = 0, k = depth; product < chain.widths.size(); k = chain.widths[product++]) {
                visit(product, of_layer, static_cast<size_t>(chain.widths[product]), k);
                of_layer += chain.weight_bytes[product];
            }
        };
        for_layers([&](size_t, const int8_t* of_layer, size_t width, size_t k) {
            bytes.push_back(kernels.packed_size(of_layer, width, k));
        });
        Aligned<int8_t> packed(std::accumulate(bytes.begin(), bytes.end(), size_t{0}));
        int8_t* to = packed.data();
        for_layers([&](size_t product, const int8_t* of_layer, size_t width, size_t k) {
            kernels.pack(of_layer, width, k, to);
            to += bytes[product];
        });
        const size_t given = std::accumulate(chain.weight_bytes.begin(), chain.weight_bytes.end(), size_t{0});
        Aligned<float> numbers((constants->get_byte_size() - given) / sizeof(float));
        std::memcpy(numbers.data(), weights + given, numbers.size() * sizeof(float));
        m_repacked = {std::move(packed), std::move(bytes), std::move(numbers)};
    });
    return m_repacked;
}

BoundChain ChainConstants::bind(const LinearChain& chain, size_t depth, bool quantizes, const int8_t* constants,
                                const ov::Node& node) const {
    const Repacked* packed_here = chain.packs() ? &repacked(chain, depth, node) : nullptr;
    const std::vector<int64_t>& weight_bytes = packed_here ? packed_here->bytes : chain.weight_bytes;
    const int8_t* weights = packed_here ? packed_here->weights.data() : constants;
    const float* numbers =
        packed_here ? packed_here->numbers.data()
                    : reinterpret_cast<const float*>(
                          weights + std::accumulate(weight_bytes.begin(), weight_bytes.end(), int64_t{0}));
    const auto next = [&numbers](size_t count) { return (numbers += count) - count; };

    BoundChain bound{};
    bound.kernels = chain.kernels;
    bound.depth = depth;
    bound.inv_scale = quantizes ? next(depth) : nullptr;
    bound.zero_point = chain.zero_points[0];
    bound.linears.reserve(chain.widths.size());
    for (size_t product = 0; product < chain.widths.size(); depth = chain.widths[product++]) {
        const size_t columns = chain.widths[product];
        const bool inner = product + 1 < chain.widths.size();
        const float *scale = next(columns), *bias = next(columns), *inv_scale = inner ? next(columns) : nullptr;
        const float zero_point = inner ? chain.zero_points[product + 1] : 0.0f;
        bound.linears.push_back({weights, scale, bias, inv_scale, zero_point, depth, columns});
        weights += weight_bytes[product];
    }
    bound.normalizes = chain.normalizes;
    if (chain.normalizes) {
        const float *gamma = next(depth), *beta = next(depth);
        bound.normalization = {gamma, beta, chain.epsilon, depth};
    }
    return bound;
}

namespace {

/// The steps of a chain, each of which `multiply` and `for_rows` may spread over threads.
template <typename Multiply, typename ForRows>
void run(const BoundChain& chain, const ChainRows& rows, const Multiply& multiply, const ForRows& for_rows) {
    static thread_local std::vector<uint8_t> first_memory, second_memory;
    const LinearKernels& kernels = *chain.kernels->linear_int8;
    const size_t depth = chain.depth, width = chain.width();
    const uint8_t* from = rows.levels;
    if (rows.floats) {
        uint8_t* quantized = at_least(first_memory, rows.count * depth);
        for_rows(rows.count, depth, [&](size_t first, size_t count) {
            kernels.quantize_rows(rows.floats + first * depth, chain.inv_scale, chain.zero_point, count, depth,
                                  quantized + first * depth);
        });
        from = quantized;
    }
    for (const Linear& linear : chain.linears) {
        // Inner results alternate between two buffers: a product reads one while it writes the other.
        uint8_t* quantized = nullptr;
        if (linear.inv_scale) {
            std::vector<uint8_t>& memory = from == second_memory.data() ? first_memory : second_memory;
            quantized = at_least(memory, rows.count * linear.width);
        }
        multiply(kernels, linear, from, rows.count, quantized ? nullptr : rows.result, quantized);
        from = quantized;
    }
    if (chain.normalizes)
        for_rows(rows.count, width, [&](size_t first, size_t count) {
            chain.kernels->add_and_normalize(chain.normalization, rows.result + first * width,
                                             rows.added + first * width, count, rows.result + first * width);
        });
}

}  // namespace

void run_chain(const BoundChain& chain, const ChainRows& rows) {
    run(chain, rows, multiply, [](size_t count, size_t width, const auto& compute) { for_rows(count, width, compute); });
}

void run_chain_alone(const BoundChain& chain, const ChainRows& rows) {
    const auto all_panels = [](const LinearKernels& kernels, const Linear& linear, const uint8_t* from, size_t count,
                               float* result, uint8_t* quantized) {
        for (size_t panel = 0; panel < panels_of(linear.width); ++panel)
            kernels.multiply_panel(linear, from, count, panel, result, quantized);
    };
    run(chain, rows, all_panels, [](size_t count, size_t, const auto& compute) { compute(0, count); });
}

}  // namespace dynamic_tinybert
