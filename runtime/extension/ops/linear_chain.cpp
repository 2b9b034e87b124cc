#include "ops/linear_chain.hpp"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <openvino/op/constant.hpp>
#include <utility>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"

namespace dynamic_tinybert {
namespace {

/// Least number of bytes that the weights of a layer take: packed ones take more than their panels on some CPUs.
size_t least_bytes(size_t width, size_t depth, bool packed) {
    return (packed ? panels_of(width) * panel_columns : width) * depth;
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

}  // namespace dynamic_tinybert
