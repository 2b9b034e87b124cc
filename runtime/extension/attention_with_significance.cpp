#include "attention_with_significance.hpp"

#include <tbb/cache_aligned_allocator.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "isa.hpp"

namespace dynamic_tinybert {
namespace {

using Floats = std::vector<float, tbb::cache_aligned_allocator<float>>;

/// Memory of one call, kept by its thread for the next one.
struct Scratch {
    std::vector<int32_t> tokens;     // [B, L]: positions of the real tokens, then unused slots
    std::vector<size_t> num_tokens;  // [B]
    Floats packed;                   // [B, heads, packed_size]
    Floats column_sums;              // [B, heads, blocks, L + column_padding]
};

/// Finds the real tokens and zeroes the context rows of the others.
size_t split_padding(const float* mask, size_t length, size_t width, int32_t* tokens, float* context) {
    size_t count = 0;
    for (size_t i = 0; i < length; ++i) {
        if (mask[i] == 0.0f)
            tokens[count++] = static_cast<int32_t>(i);
        else
            std::memset(context + i * width, 0, width * sizeof(float));
    }
    return count;
}

}  // namespace

bool AttentionWithSignificance::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("significance", m_significance);
    visitor.on_attribute("int16", m_int16);
    return true;
}

std::shared_ptr<ov::Node> AttentionWithSignificance::clone_with_new_inputs(
    const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<AttentionWithSignificance>();
    copy->m_heads = m_heads;
    copy->m_significance = m_significance;
    copy->m_int16 = m_int16;
    copy->m_kernels = m_kernels;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void AttentionWithSignificance::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == 4, "AttentionWithSignificance: ", get_input_size(),
                    " inputs; give query, key, value and mask");
    OPENVINO_ASSERT(m_heads >= 1, "AttentionWithSignificance: heads ", m_heads, " must be at least 1");
    ov::PartialShape shape = ov::PartialShape::dynamic(3);
    for (size_t input = 0; input < 4; ++input)
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32,
                        "AttentionWithSignificance: input ", input, " is of type ",
                        get_input_element_type(input), "; convert it to f32");
    for (size_t input = 0; input < 3; ++input)
        OPENVINO_ASSERT(ov::PartialShape::merge_into(shape, get_input_partial_shape(input)),
                        "AttentionWithSignificance: input ", input, " has shape ",
                        get_input_partial_shape(input), " where ", shape,
                        " is needed; query, key and value are all [B, L, D]");
    ov::PartialShape mask{shape[0], shape[1]};
    OPENVINO_ASSERT(ov::PartialShape::merge_into(mask, get_input_partial_shape(3)),
                    "AttentionWithSignificance: the mask has shape ", get_input_partial_shape(3), " where ",
                    mask, " is needed");
    OPENVINO_ASSERT(shape[2].is_dynamic() || shape[2].get_length() % m_heads == 0,
                    "AttentionWithSignificance: width ", shape[2], " is not a multiple of ", m_heads,
                    " heads");
    if (!m_kernels) {
        const Kernels& kernels = choose_kernels();
        m_kernels = m_int16 && kernels.int16_attention ? kernels.int16_attention : &kernels.attention;
    }
    set_output_size(m_significance ? 2 : 1);
    set_output_type(0, ov::element::f32, {mask[0], mask[1], shape[2]});
    if (m_significance)
        set_output_type(1, ov::element::f32, mask);
}

bool AttentionWithSignificance::has_evaluate() const {
    return true;
}

bool AttentionWithSignificance::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[0].get_shape();
    const size_t batch = shape[0], length = shape[1], width = shape[2];
    const size_t heads = m_heads, dim = width / heads;
    OPENVINO_ASSERT(width % heads == 0, "AttentionWithSignificance: width ", width, " is not a multiple of ",
                    heads, " heads");
    const float *query = inputs[0].data<const float>(), *key = inputs[1].data<const float>();
    const float *value = inputs[2].data<const float>(), *mask = inputs[3].data<const float>();
    outputs[0].set_shape(shape);
    float* context = outputs[0].data<float>();
    float* significance = nullptr;
    if (m_significance) {
        outputs[1].set_shape({batch, length});
        significance = outputs[1].data<float>();
        std::fill_n(significance, batch * length, 0.0f);
    }

    const size_t max_blocks = (length + query_block - 1) / query_block;
    const size_t packed_size = m_kernels->packed_size(length, dim);
    const size_t sums_size = m_significance ? length + column_padding : 0;
    thread_local Scratch thread_scratch;
    Scratch& scratch = thread_scratch;  // by this name the threads below share it
    scratch.tokens.resize(batch * length);
    scratch.num_tokens.resize(batch);
    scratch.packed.resize(batch * heads * packed_size);
    scratch.column_sums.resize(batch * heads * max_blocks * sums_size);
    for (size_t b = 0; b < batch; ++b)
        scratch.num_tokens[b] =
            split_padding(mask + b * length, length, width, scratch.tokens.data() + b * length,
                          context + b * length * width);

    const auto head_of = [&](size_t b, size_t h) {
        const size_t from = b * length * width + h * dim;
        const int32_t* tokens = scratch.tokens.data() + b * length;
        return Head{query + from, key + from, value + from, context + from,
                    width,        dim,        tokens,       scratch.num_tokens[b]};
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
        const size_t first = block * query_block, last = std::min(first + query_block, view.num_tokens);
        if (first < last)
            m_kernels->attend(view, packed_of(head), first, last,
                              significance ? sums_of(head, block) : nullptr);
    };

    // Always in the order of heads and blocks, so that the number of threads cannot change the result.
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
    return true;
}

}  // namespace dynamic_tinybert
