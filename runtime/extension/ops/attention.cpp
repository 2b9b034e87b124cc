#include "ops/attention.hpp"

#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <vector>

#include "kernels/aligned.hpp"
#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

/// Buffers of one call, which its thread keeps for the next one.
struct Scratch {
    std::vector<int32_t> tokens;     // [B, L]: positions of the real tokens, then unused space
    std::vector<size_t> num_tokens;  // [B]
    std::vector<size_t> num_queries; // [B]: how many of the real tokens have a query
    Aligned<float> packed;           // [B, heads, packed_size]
    Aligned<float> column_sums;      // [B, heads, blocks, L + column_padding]
};

/// Lists the real tokens and returns their number; fills the context rows of the others, of the first `rows`, with `zero`.
template <typename T>
size_t split_padding(const float* mask, size_t length, size_t rows, size_t width, int32_t* tokens, T* context, T zero) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) {
        if (mask[i] == 0.0f)
            tokens[count++] = static_cast<int32_t>(i);
        else if (i < rows)
            std::fill_n(context + i * width, width, zero);
    }
    return count;
}

enum Input : size_t { projections_in, mask_in, query_in };

/// The `parts` of query, key and value that lie side by side must be as wide as this number of heads needs.
void check_width(const char* op, int64_t width, int64_t parts, int64_t heads) {
    check_size(op, "the width of query, key and value", width, parts * largest_size);
    OPENVINO_ASSERT(width > 0 && width % parts == 0 && width / parts % heads == 0, op, ": width ", width, " is not ",
                    parts, " times a multiple of ", heads, " heads");
}

/// How many of query, key and value lie side by side in the first input.
size_t parts_of(size_t inputs) {
    return inputs > query_in ? 2 : 3;
}

}  // namespace

bool Attention::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("int16", m_int16);
    visitor.on_attribute("inv_scale", m_inv_scale);
    visitor.on_attribute("zero_point", m_zero_point);
    return true;
}

void Attention::copy_to(Attention& copy, const ov::OutputVector& inputs) const {
    copy.m_heads = m_heads;
    copy.m_int16 = m_int16;
    copy.m_inv_scale = m_inv_scale;
    copy.m_zero_point = m_zero_point;
    copy.m_kernels = m_kernels;
    copy.set_arguments(inputs);
    copy.validate_and_infer_types();
}

std::shared_ptr<ov::Node> Attention::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<Attention>();
    copy_to(*copy, inputs);
    return copy;
}

void Attention::validate_and_infer_types() {
    const char* op = get_type_name();
    const bool has_query = get_input_size() == query_in + 1;
    OPENVINO_ASSERT(get_input_size() == query_in || has_query, op, ": ", get_input_size(),
                    " inputs; give query, key and value side by side, and the mask; or key and value, the mask, and "
                    "the query");
    OPENVINO_ASSERT(m_heads >= 1, op, ": heads ", m_heads, " must be at least 1");
    check_size(op, "heads", m_heads, largest_size);
    OPENVINO_ASSERT(m_inv_scale >= 0.0f && m_zero_point >= 0.0f && m_zero_point <= 255.0f, op,
                    ": the context cannot be quantised with inv_scale ", m_inv_scale, " and zero point ", m_zero_point,
                    "; give an inv_scale of at least 0 and a zero point within 0 ... 255");
    for (size_t input = 0; input < get_input_size(); ++input)
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, op, ": input ", input, " is of type ",
                        get_input_element_type(input), "; convert it to f32");
    const int64_t parts = parts_of(get_input_size());
    ov::PartialShape shape = ov::PartialShape::dynamic(3);
    OPENVINO_ASSERT(ov::PartialShape::merge_into(shape, get_input_partial_shape(projections_in)), op,
                    ": query, key and value have shape ", get_input_partial_shape(projections_in), " where [B, L, ",
                    parts, " D] is needed");
    ov::PartialShape mask{shape[0], shape[1]};
    OPENVINO_ASSERT(ov::PartialShape::merge_into(mask, get_input_partial_shape(mask_in)), op, ": the mask has shape ",
                    get_input_partial_shape(mask_in), " where ", mask, " is needed");
    if (shape[2].is_static())
        check_width(op, shape[2].get_length(), parts, m_heads);
    if (!m_kernels) {
        const Kernels& kernels = choose_kernels();
        m_kernels = m_int16 ? kernels.attention_int16 : kernels.attention_f32;
    }
    const ov::Dimension width =
        shape[2].is_dynamic() ? ov::Dimension::dynamic() : ov::Dimension(shape[2].get_length() / parts);
    ov::PartialShape context{mask[0], mask[1], width};
    if (has_query) {
        context = {mask[0], ov::Dimension::dynamic(), width};
        OPENVINO_ASSERT(ov::PartialShape::merge_into(context, get_input_partial_shape(query_in)), op,
                        ": the query has shape ", get_input_partial_shape(query_in), " where ", context, " is needed");
    }
    set_output_type(0, m_inv_scale > 0.0f ? ov::element::u8 : ov::element::f32, context);
}

bool Attention::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    compute(outputs[0], nullptr, inputs);
    return true;
}

bool AttentionWithSignificance::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("int16", m_int16);
    return true;
}

std::shared_ptr<ov::Node> AttentionWithSignificance::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<AttentionWithSignificance>();
    copy_to(*copy, inputs);
    return copy;
}

void AttentionWithSignificance::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == query_in, get_type_name(), ": ", get_input_size(),
                    " inputs; significance needs the queries of all tokens: give query, key and value side by side, "
                    "and the mask");
    Attention::validate_and_infer_types();
    const ov::PartialShape& context = get_output_partial_shape(0);
    set_output_type(1, ov::element::f32, {context[0], context[1]});
}

bool AttentionWithSignificance::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[0].get_shape();
    outputs[1].set_shape({shape[0], shape[1]});
    float* significance = outputs[1].data<float>();
    std::fill_n(significance, shape[0] * shape[1], 0.0f);
    compute(outputs[0], significance, inputs);
    return true;
}

void Attention::compute(ov::Tensor& output, float* significance, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[projections_in].get_shape();
    const size_t parts = parts_of(inputs.size());
    check_width(get_type_name(), shape[2], parts, m_heads);
    const size_t batch = shape[0], length = shape[1], width = shape[2] / parts;
    const bool has_query = inputs.size() > query_in;
    const size_t queries = has_query ? inputs[query_in].get_shape()[1] : length;  // of each sequence
    check_size(get_type_name(), "the length", length, longest);
    check_shape(get_type_name(), "the mask", inputs[mask_in], {batch, length});
    if (has_query) {
        check_shape(get_type_name(), "the query", inputs[query_in], {batch, queries, width});
        OPENVINO_ASSERT(queries <= length, get_type_name(), ": ", queries, " queries for ", length,
                        " tokens; give those of the first tokens");
    }
    const size_t heads = m_heads, dim = width / heads;
    const float *projections = inputs[projections_in].data<const float>(), *mask = inputs[mask_in].data<const float>();
    const float* query_rows = has_query ? inputs[query_in].data<const float>() : nullptr;
    output.set_shape({batch, queries, width});
    const bool quantizes = m_inv_scale > 0.0f;
    float* context = quantizes ? nullptr : output.data<float>();
    uint8_t* quantized = quantizes ? output.data<uint8_t>() : nullptr;

    const size_t max_blocks = (queries + query_block - 1) / query_block;
    const size_t packed_size = m_kernels->packed_size(length, dim);
    const size_t sums_size = significance ? length + column_padding : 0;
    thread_local Scratch thread_scratch;
    Scratch& scratch = thread_scratch;  // a name under which the threads below share it
    at_least(scratch.tokens, batch * length);
    at_least(scratch.num_tokens, batch);
    at_least(scratch.num_queries, batch);
    at_least(scratch.packed, batch * heads * packed_size);
    at_least(scratch.column_sums, batch * heads * max_blocks * sums_size);
    for (size_t b = 0; b < batch; ++b) {
        const float* real = mask + b * length;
        int32_t* tokens = scratch.tokens.data() + b * length;
        const size_t from = b * queries * width;
        scratch.num_tokens[b] =
            quantized ? split_padding(real, length, queries, width, tokens, quantized + from, quantize(m_zero_point))
                      : split_padding(real, length, queries, width, tokens, context + from, 0.0f);
        scratch.num_queries[b] = std::lower_bound(tokens, tokens + scratch.num_tokens[b], static_cast<int32_t>(queries)) - tokens;
    }

    const auto head_of = [&](size_t b, size_t h) {
        const float* projected = projections + parts * b * length * width + h * dim;
        const size_t to = b * queries * width + h * dim;
        Head head{};
        head.query = query_rows ? query_rows + to : projected;
        head.query_stride = query_rows ? width : 3 * width;
        head.key = projected + (parts - 2) * width;
        head.value = head.key + width;
        head.stride = parts * width;
        head.context = context ? context + to : nullptr;
        head.quantized = quantized ? quantized + to : nullptr;
        head.context_stride = width;
        head.inv_scale = m_inv_scale;
        head.zero_point = m_zero_point;
        head.dim = dim;
        head.tokens = scratch.tokens.data() + b * length;
        head.num_tokens = scratch.num_tokens[b];
        return head;
    };
    const auto packed_of = [&](size_t head) { return scratch.packed.data() + head * packed_size; };
    const auto sums_of = [&](size_t head, size_t block) {
        return scratch.column_sums.data() + (head * max_blocks + block) * sums_size;
    };

    const auto pack = [&](size_t head) {
        m_kernels->pack(head_of(head / heads, head % heads), packed_of(head));
    };

    const auto attend = [&](size_t item) {
        const size_t head = item / max_blocks, block = item % max_blocks;
        const Head view = head_of(head / heads, head % heads);
        const size_t first = block * query_block, last = std::min(first + query_block, scratch.num_queries[head / heads]);
        if (first < last)
            m_kernels->attend(view, packed_of(head), first, last,
                              significance ? sums_of(head, block) : nullptr);
    };

    // Always in the order of heads and blocks, so that the number of threads cannot change a bit of the result.
    const auto add_columns = [&](size_t b) {
        const size_t num_tokens = scratch.num_tokens[b];
        const int32_t* tokens = scratch.tokens.data() + b * length;
        for (size_t h = 0; h < heads; ++h)
            for (size_t block = 0; block * query_block < num_tokens; ++block)
                for (size_t i = 0; i < num_tokens; ++i)
                    significance[b * length + tokens[i]] += sums_of(b * heads + h, block)[i];
    };

    // A thread that waits in here must not pick up another request, which would use the same scratch.
    tbb::this_task_arena::isolate([&] {
        tbb::parallel_for(size_t{0}, batch * heads, pack);
        tbb::parallel_for(size_t{0}, batch * heads * max_blocks, attend);
        if (significance)
            tbb::parallel_for(size_t{0}, batch, add_columns);
    });
}

}  // namespace dynamic_tinybert
