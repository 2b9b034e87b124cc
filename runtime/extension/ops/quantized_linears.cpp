#include "ops/quantized_linears.hpp"

#include <tbb/task_arena.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <openvino/op/constant.hpp>
#include <utility>

#include "ops/dimensions.hpp"
#include "ops/memory.hpp"
#include "ops/rows.hpp"
#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { rows_in, constants_in, residual_in };

constexpr size_t products_worth_a_thread = 256 * 1024;  // with fewer, waking a thread takes longer than computing them
constexpr size_t tasks_for_a_thread = 3;  // at least, so that others can take over from a thread that is late or slow
constexpr size_t fewest_rows = 24;        // of a task, which reads a whole panel of the weights

/// Least number of bytes that the weights of a layer take: packed ones take more than their panels on some CPUs.
size_t least_bytes(size_t width, size_t depth, bool packed) {
    return (packed ? panels_of(width) * panel_columns : width) * depth;
}

/// Number of bytes of all constants: weights and floats.
size_t size_of_constants(size_t depth, const std::vector<int64_t>& widths, const std::vector<int64_t>& weight_bytes,
                         bool packed, bool quantizes_rows, bool normalizes) {
    size_t weights = 0, floats = quantizes_rows ? depth : 0;
    for (size_t product = 0; product < widths.size(); ++product) {
        const size_t width = widths[product], least = least_bytes(width, depth, packed);
        weights += std::max<size_t>(weight_bytes[product], least);
        floats += (product + 1 < widths.size() ? 3 : 2) * width;
        depth = width;
    }
    return weights + (floats + (normalizes ? 2 * depth : 0)) * sizeof(float);
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

bool QuantizedLinears::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("widths", m_widths);
    visitor.on_attribute("zero_points", m_zero_points);
    visitor.on_attribute("normalizes", m_normalizes);
    visitor.on_attribute("epsilon", m_epsilon);
    visitor.on_attribute("isa", m_isa);
    visitor.on_attribute("weight_bytes", m_weight_bytes);
    return true;
}

std::shared_ptr<ov::Node> QuantizedLinears::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<QuantizedLinears>();
    copy->m_widths = m_widths;
    copy->m_zero_points = m_zero_points;
    copy->m_normalizes = m_normalizes;
    copy->m_epsilon = m_epsilon;
    copy->m_isa = m_isa;
    copy->m_weight_bytes = m_weight_bytes;
    copy->m_kernels = m_kernels;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void QuantizedLinears::validate_and_infer_types() {
    const size_t count = get_input_size();
    OPENVINO_ASSERT(count == residual_in || (count == residual_in + 1 && m_normalizes), "QuantizedLinears: ", count,
                    " inputs; give rows and constants, and a residual only if the result is normalised");
    const ov::element::Type& type = get_input_element_type(rows_in);
    const bool quantizes = type == ov::element::f32;
    OPENVINO_ASSERT(quantizes || type == ov::element::u8, "QuantizedLinears: the rows are of type ", type,
                    "; convert them to u8 or f32");
    OPENVINO_ASSERT(quantizes || !m_normalizes || count > residual_in,
                    "QuantizedLinears: rows in u8 cannot be added to the result; give a residual");
    OPENVINO_ASSERT(get_input_element_type(constants_in) == ov::element::i8,
                    "QuantizedLinears: the constants are of type ", get_input_element_type(constants_in), "; give i8");
    OPENVINO_ASSERT(!m_widths.empty() && m_zero_points.size() == m_widths.size(), "QuantizedLinears: ", m_widths.size(),
                    " widths and ", m_zero_points.size(), " zero points; give one of each for every product");
    for (float zero_point : m_zero_points)
        OPENVINO_ASSERT(zero_point >= 0.0f && zero_point <= 255.0f, "QuantizedLinears: zero point ", zero_point,
                        " is outside 0 ... 255");
    check_size("QuantizedLinears", "the number of products", m_widths.size(), largest_size);
    for (size_t product = 0; product < m_widths.size(); ++product) {
        OPENVINO_ASSERT(m_widths[product] > 0 &&
                            (product + 1 == m_widths.size() || m_widths[product] % depth_step == 0),
                        "QuantizedLinears: width ", m_widths[product], " of product ", product,
                        " must be at least 1 and, before another product, a multiple of ", depth_step);
        check_size("QuantizedLinears", "a width", m_widths[product], largest_size);
    }
    OPENVINO_ASSERT(m_epsilon >= 0.0f, "QuantizedLinears: epsilon ", m_epsilon, " must be at least 0");
    ov::PartialShape shape = get_input_partial_shape(rows_in);
    OPENVINO_ASSERT(shape.rank().compatible(3) && shape.rank().is_static() && shape[2].is_static() &&
                        shape[2].get_length() > 0 && shape[2].get_length() % depth_step == 0,
                    "QuantizedLinears: the rows have shape ", shape, "; give [B, L, K], K a multiple of ", depth_step);
    check_size("QuantizedLinears", "the width of the rows", shape[2], largest_size);
    OPENVINO_ASSERT(m_weight_bytes.size() == m_widths.size(), "QuantizedLinears: ", m_widths.size(), " widths and ",
                    m_weight_bytes.size(), " sizes of weights; give one of each for every product");
    for (int64_t given : m_weight_bytes)
        OPENVINO_ASSERT(given >= 0 && given <= largest_size * largest_size, "QuantizedLinears: weights take ", given,
                        " bytes; at most ", largest_size * largest_size, " are allowed");
    const size_t bytes =
        size_of_constants(shape[2].get_length(), m_widths, m_weight_bytes, !packs(), quantizes, m_normalizes);
    OPENVINO_ASSERT(get_input_partial_shape(constants_in).compatible(ov::Shape{bytes}),
                    "QuantizedLinears: the constants have shape ", get_input_partial_shape(constants_in),
                    " where these widths on rows of ", shape, " need [", bytes, "]");
    for (size_t product = 0, depth = shape[2].get_length(); product < m_widths.size(); depth = m_widths[product++]) {
        const size_t given = m_weight_bytes[product], least = least_bytes(m_widths[product], depth, !packs());
        if (packs())
            OPENVINO_ASSERT(given == least, "QuantizedLinears: the weights of product ", product, " take ", given,
                            " bytes; without being packed they must take ", least);
        else
            OPENVINO_ASSERT(given >= least && given % 64 == 0, "QuantizedLinears: the weights of product ", product,
                            " take ", given, " bytes; pack them, which gives a multiple of 64, at least ", least);
    }
    shape[2] = m_widths.back();
    if (m_normalizes) {
        const size_t added = count > residual_in ? residual_in : rows_in;
        OPENVINO_ASSERT(get_input_element_type(added) == ov::element::f32 &&
                            ov::PartialShape::merge_into(shape, get_input_partial_shape(added)),
                        "QuantizedLinears: input ", added, ", ", get_input_element_type(added), " of shape ",
                        get_input_partial_shape(added), ", cannot be added to the result, f32 of shape ", shape);
    }
    OPENVINO_ASSERT(!packs() || ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(constants_in)),
                    "QuantizedLinears: the constants are computed by ", get_input_node_ptr(constants_in)->get_type_name(),
                    "; weights can be packed here only if they are a Constant");
    if (!m_kernels)
        m_kernels = packs() ? &choose_kernels() : runnable_kernels(m_isa);
    OPENVINO_ASSERT(m_kernels, "QuantizedLinears: the weights are packed for '", m_isa,
                    "', which this CPU cannot run; pack them here, for one of: ", runnable_isas());
    set_output_type(0, ov::element::f32, shape);
}

bool QuantizedLinears::has_evaluate() const {
    return true;
}

/// The constants for rows of this depth, with the weights packed for the kernels at the first call.
const QuantizedLinears::Repacked& QuantizedLinears::repacked(size_t depth) const {
    std::call_once(m_first_call, [&] {
        const auto* constants = ov::as_type<ov::op::v0::Constant>(get_input_node_ptr(constants_in));
        OPENVINO_ASSERT(constants, "QuantizedLinears: the constants are no longer a Constant");
        const LinearKernels& kernels = *m_kernels->linear_int8;
        const int8_t* weights = constants->get_data_ptr<int8_t>();
        std::vector<int64_t> bytes;
        const auto for_layers = [&](const auto& visit) {
            const int8_t* of_layer = weights;
            for (size_t product = 0, k = depth; product < m_widths.size(); k = m_widths[product++]) {
                visit(product, of_layer, static_cast<size_t>(m_widths[product]), k);
                of_layer += m_weight_bytes[product];
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
        const size_t given = std::accumulate(m_weight_bytes.begin(), m_weight_bytes.end(), size_t{0});
        Aligned<float> numbers((constants->get_byte_size() - given) / sizeof(float));
        std::memcpy(numbers.data(), weights + given, numbers.size() * sizeof(float));
        m_repacked = {std::move(packed), std::move(bytes), std::move(numbers)};
    });
    return m_repacked;
}

bool QuantizedLinears::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    static thread_local std::vector<uint8_t> first_memory, second_memory;
    const ov::Shape shape = inputs[rows_in].get_shape();
    const size_t rows = shape[0] * shape[1], last = m_widths.size() - 1, width = m_widths[last];
    const LinearKernels& kernels = *m_kernels->linear_int8;
    const bool quantizes = inputs[rows_in].get_element_type() == ov::element::f32;
    check_shape("QuantizedLinears", "the constants", inputs[constants_in],
                {size_of_constants(shape[2], m_widths, m_weight_bytes, !packs(), quantizes, m_normalizes)});
    if (inputs.size() > residual_in)
        check_shape("QuantizedLinears", "the residual", inputs[residual_in], {shape[0], shape[1], width});
    outputs[0].set_shape({shape[0], shape[1], width});
    float* result = outputs[0].data<float>();
    if (rows == 0)
        return true;

    const Repacked* packed_here = packs() ? &repacked(shape[2]) : nullptr;
    const std::vector<int64_t>& weight_bytes = packed_here ? packed_here->bytes : m_weight_bytes;
    const int8_t* weights = packed_here ? packed_here->weights.data() : inputs[constants_in].data<const int8_t>();
    const float* numbers =
        packed_here ? packed_here->numbers.data()
                    : reinterpret_cast<const float*>(
                          weights + std::accumulate(weight_bytes.begin(), weight_bytes.end(), int64_t{0}));
    const auto next = [&numbers](size_t count) { return (numbers += count) - count; };

    const auto compute = [&] {
        const uint8_t* from;
        if (quantizes) {
            const float *states = inputs[rows_in].data<const float>(), *inv_scale = next(shape[2]);
            uint8_t* quantized = at_least(first_memory, rows * shape[2]);
            for_rows(rows, shape[2], [&](size_t first, size_t count) {
                kernels.quantize_rows(states + first * shape[2], inv_scale, m_zero_points[0], count, shape[2],
                                      quantized + first * shape[2]);
            });
            from = quantized;
        } else {
            from = inputs[rows_in].data<const uint8_t>();
        }

        for (size_t product = 0, depth = shape[2]; product <= last; depth = m_widths[product++]) {
            const size_t columns = m_widths[product];
            const float *scale = next(columns), *bias = next(columns);
            const bool inner = product < last;
            const float* inv_scale = inner ? next(columns) : nullptr;
            const float zero_point = inner ? m_zero_points[product + 1] : 0.0f;
            const Linear linear{weights, scale, bias, inv_scale, zero_point, depth, columns};
            // Inner results alternate between two buffers: a product reads one while it writes the other.
            uint8_t* quantized = nullptr;
            if (inner) {
                std::vector<uint8_t>& memory = from == second_memory.data() ? first_memory : second_memory;
                quantized = at_least(memory, rows * columns);
            }
            multiply(kernels, linear, from, rows, inner ? nullptr : result, quantized);
            weights += weight_bytes[product];
            from = quantized;
        }

        if (m_normalizes) {
            const size_t added_in = inputs.size() > residual_in ? residual_in : rows_in;
            const float* added = inputs[added_in].data<const float>();
            const float *gamma = next(width), *beta = next(width);
            const Normalization normalization{gamma, beta, m_epsilon, width};
            for_rows(rows, width, [&](size_t first, size_t count) {
                m_kernels->add_and_normalize(normalization, result + first * width, added + first * width, count,
                                             result + first * width);
            });
        }
    };
    // A thread that waits in here must not pick up another request, which would use the same buffers.
    tbb::this_task_arena::isolate(compute);
    return true;
}

}  // namespace dynamic_tinybert
