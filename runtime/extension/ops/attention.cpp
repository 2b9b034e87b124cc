#include "ops/attention.hpp"

#include <tbb/task_arena.h>

#include "ops/attention_pass.hpp"
#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

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
    output.set_shape({batch, queries, width});
    const bool quantizes = m_inv_scale > 0.0f;
    AttentionBatch pass{};
    pass.batch = batch;
    pass.length = length;
    pass.queries = queries;
    pass.width = width;
    pass.heads = m_heads;
    pass.projections = inputs[projections_in].data<const float>();
    pass.query = has_query ? inputs[query_in].data<const float>() : nullptr;
    pass.mask = inputs[mask_in].data<const float>();
    pass.context = quantizes ? nullptr : output.data<float>();
    pass.quantized = quantizes ? output.data<uint8_t>() : nullptr;
    pass.inv_scale = m_inv_scale;
    pass.zero_point = m_zero_point;
    pass.significance = significance;
    const Lent<AttentionScratch> lent;
    AttentionScratch& scratch = *lent;
    // A thread that waits in here must not pick up another request, which would delay this one.
    tbb::this_task_arena::isolate([&] {
        Stages stages(tbb::this_task_arena::max_concurrency());
        add_attention(stages, *m_kernels, pass, scratch);
        stages.run();
    });
}

}  // namespace dynamic_tinybert
