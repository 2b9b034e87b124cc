#include "ops/quantized_linears.hpp"

#include <tbb/task_arena.h>

#include <openvino/op/constant.hpp>

#include "ops/dimensions.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { rows_in, constants_in, residual_in };

}  // namespace

bool QuantizedLinears::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("widths", m_chain.widths);
    visitor.on_attribute("zero_points", m_chain.zero_points);
    visitor.on_attribute("normalizes", m_chain.normalizes);
    visitor.on_attribute("epsilon", m_chain.epsilon);
    visitor.on_attribute("isa", m_chain.isa);
    visitor.on_attribute("weight_bytes", m_chain.weight_bytes);
    return true;
}

std::shared_ptr<ov::Node> QuantizedLinears::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<QuantizedLinears>();
    copy->m_chain = m_chain;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void QuantizedLinears::validate_and_infer_types() {
    const size_t count = get_input_size();
    OPENVINO_ASSERT(count == residual_in || (count == residual_in + 1 && m_chain.normalizes), "QuantizedLinears: ",
                    count, " inputs; give rows and constants, and a residual only if the result is normalised");
    const ov::element::Type& type = get_input_element_type(rows_in);
    const bool quantizes = type == ov::element::f32;
    OPENVINO_ASSERT(quantizes || type == ov::element::u8, "QuantizedLinears: the rows are of type ", type,
                    "; convert them to u8 or f32");
    OPENVINO_ASSERT(quantizes || !m_chain.normalizes || count > residual_in,
                    "QuantizedLinears: rows in u8 cannot be added to the result; give a residual");
    OPENVINO_ASSERT(get_input_element_type(constants_in) == ov::element::i8,
                    "QuantizedLinears: the constants are of type ", get_input_element_type(constants_in), "; give i8");
    ov::PartialShape shape = get_input_partial_shape(rows_in);
    OPENVINO_ASSERT(shape.rank().compatible(3) && shape.rank().is_static() && shape[2].is_static() &&
                        shape[2].get_length() > 0 && shape[2].get_length() % depth_step == 0,
                    "QuantizedLinears: the rows have shape ", shape, "; give [B, L, K], K a multiple of ", depth_step);
    m_chain.check("QuantizedLinears", shape[2].get_length(), quantizes, get_input_partial_shape(constants_in));
    shape[2] = m_chain.widths.back();
    if (m_chain.normalizes) {
        const size_t added = count > residual_in ? residual_in : rows_in;
        OPENVINO_ASSERT(get_input_element_type(added) == ov::element::f32 &&
                            ov::PartialShape::merge_into(shape, get_input_partial_shape(added)),
                        "QuantizedLinears: input ", added, ", ", get_input_element_type(added), " of shape ",
                        get_input_partial_shape(added), ", cannot be added to the result, f32 of shape ", shape);
    }
    OPENVINO_ASSERT(!m_chain.packs() || ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(constants_in)),
                    "QuantizedLinears: the constants are computed by ", get_input_node_ptr(constants_in)->get_type_name(),
                    "; weights can be packed here only if they are a Constant");
    set_output_type(0, ov::element::f32, shape);
}

bool QuantizedLinears::has_evaluate() const {
    return true;
}

bool QuantizedLinears::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[rows_in].get_shape();
    const size_t width = m_chain.widths.back();
    const bool quantizes = inputs[rows_in].get_element_type() == ov::element::f32;
    check_shape("QuantizedLinears", "the constants", inputs[constants_in],
                {m_chain.size_of_constants(shape[2], quantizes)});
    if (inputs.size() > residual_in)
        check_shape("QuantizedLinears", "the residual", inputs[residual_in], {shape[0], shape[1], width});
    outputs[0].set_shape({shape[0], shape[1], width});
    ChainRows rows{};
    rows.count = shape[0] * shape[1];
    if (rows.count == 0)
        return true;
    rows.floats = quantizes ? inputs[rows_in].data<const float>() : nullptr;
    rows.levels = quantizes ? nullptr : inputs[rows_in].data<const uint8_t>();
    if (m_chain.normalizes)
        rows.added = inputs[inputs.size() > residual_in ? residual_in : rows_in].data<const float>();
    rows.result = outputs[0].data<float>();
    const BoundChain chain = m_constants.bind(m_chain, shape[2], quantizes, inputs[constants_in].data<const int8_t>(),
                                              *get_input_node_ptr(constants_in));
    const Lent<LevelBuffers> lent;
    LevelBuffers& buffers = *lent;
    // A thread that waits in here must not pick up another request, which would delay this one.
    tbb::this_task_arena::isolate([&] {
        Stages stages(is_worth_one_thread(chain, rows.count) ? 1 : tbb::this_task_arena::max_concurrency());
        make_room(buffers, chain, rows.count);
        add_chains(stages, {{&chain, rows}}, buffers);
        stages.run();
    });
    return true;
}

}  // namespace dynamic_tinybert
