#include "residual_layer_norm.hpp"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/partitioner.h>

#include "isa.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { first_in, second_in, scales_in, num_inputs };

constexpr size_t numbers_worth_a_thread = 4 * 1024;  // with fewer, waking one takes longer

}  // namespace

bool ResidualLayerNorm::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("epsilon", m_epsilon);
    visitor.on_attribute("zero_point", m_zero_point);
    return true;
}

std::shared_ptr<ov::Node> ResidualLayerNorm::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<ResidualLayerNorm>();
    copy->m_epsilon = m_epsilon;
    copy->m_zero_point = m_zero_point;
    copy->m_add_and_normalize = m_add_and_normalize;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void ResidualLayerNorm::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "ResidualLayerNorm: ", get_input_size(),
                    " inputs; give two tensors to add, and gamma, beta and units");
    for (size_t input = 0; input < num_inputs; ++input)
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, "ResidualLayerNorm: input ", input,
                        " is of type ", get_input_element_type(input), "; convert it to f32");
    ov::PartialShape shape = ov::PartialShape::dynamic(3);
    for (size_t input : {first_in, second_in})
        OPENVINO_ASSERT(ov::PartialShape::merge_into(shape, get_input_partial_shape(input)),
                        "ResidualLayerNorm: input ", input, " has shape ", get_input_partial_shape(input), " where ",
                        shape, " is needed; what is added is [B, L, D]");
    const ov::PartialShape& scales = get_input_partial_shape(scales_in);
    OPENVINO_ASSERT(scales.is_static() && scales.size() == 2 && (scales[0] == 2 || scales[0] == 3) &&
                        ov::Dimension::merge(shape[2], shape[2], scales[1]),
                    "ResidualLayerNorm: the scales have shape ", scales, " beside what is ", shape,
                    "; give [2, D], or [3, D] for a quantised output");
    OPENVINO_ASSERT(m_epsilon >= 0.0f, "ResidualLayerNorm: epsilon ", m_epsilon, " must be at least 0");
    OPENVINO_ASSERT(m_zero_point >= 0.0f && m_zero_point <= 255.0f, "ResidualLayerNorm: zero point ", m_zero_point,
                    " is outside 0 ... 255");
    if (!m_add_and_normalize)
        m_add_and_normalize = choose_kernels().add_and_normalize;
    const bool quantizes = scales[0] == 3;
    set_output_size(quantizes ? 2 : 1);
    set_output_type(0, ov::element::f32, shape);
    if (quantizes)
        set_output_type(1, ov::element::u8, shape);
}

bool ResidualLayerNorm::has_evaluate() const {
    return true;
}

bool ResidualLayerNorm::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[first_in].get_shape();
    const size_t rows = shape[0] * shape[1], width = shape[2];
    const bool quantizes = inputs[scales_in].get_shape()[0] == 3;
    const float *first = inputs[first_in].data<const float>(), *second = inputs[second_in].data<const float>();
    const float* scales = inputs[scales_in].data<const float>();
    for (ov::Tensor& output : outputs)
        output.set_shape(shape);
    float* state = outputs[0].data<float>();
    uint8_t* quantized = quantizes ? outputs[1].data<uint8_t>() : nullptr;
    const Normalization normalization{
        scales, scales + width, quantizes ? scales + 2 * width : nullptr, m_zero_point, m_epsilon, width};
    const auto compute = [&](const tbb::blocked_range<size_t>& range) {
        const size_t from = range.begin() * width;
        m_add_and_normalize(normalization, first + from, second + from, range.size(), state + from,
                            quantized ? quantized + from : nullptr);
    };
    const tbb::blocked_range<size_t> all(0, rows, numbers_worth_a_thread / width + 1);
    if (rows * width < 2 * numbers_worth_a_thread)
        compute(all);
    else
        tbb::parallel_for(all, compute, tbb::static_partitioner());
    return true;
}

}  // namespace dynamic_tinybert
