#include "ops/float_linear.hpp"

#include <algorithm>
#include <cmath>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/task_sharing.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { rows_in, layer_in, num_inputs };

constexpr size_t products_worth_a_thread = 64 * 1024;  // with fewer, waking a thread takes longer than computing them

}  // namespace

bool FloatLinear::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("tanh", m_tanh);
    return true;
}

std::shared_ptr<ov::Node> FloatLinear::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<FloatLinear>();
    copy->m_tanh = m_tanh;
    copy->m_compute = m_compute;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void FloatLinear::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "FloatLinear: ", get_input_size(), " inputs; give rows and layer");
    for (size_t input : {rows_in, layer_in})
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, "FloatLinear: input ", input,
                        " is of type ", get_input_element_type(input), "; convert it to f32");
    ov::Dimension batch, length, width, columns, with_bias;
    const bool fits = merge_dimensions(get_input_partial_shape(rows_in), {&batch, &length, &width});
    with_bias = width + 1;
    OPENVINO_ASSERT(fits && merge_dimensions(get_input_partial_shape(layer_in), {&columns, &with_bias}),
                    "FloatLinear: rows have shape ", get_input_partial_shape(rows_in), " and the layer ",
                    get_input_partial_shape(layer_in), "; give rows [B, L, K] and layer [N, K + 1]");
    check_size("FloatLinear", "the width of the rows", width, largest_size);
    check_size("FloatLinear", "the number of columns", columns, largest_size);
    if (!m_compute)
        m_compute = choose_kernels().float_linear;
    set_output_type(0, ov::element::f32, {batch, length, columns});
}

bool FloatLinear::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[rows_in].get_shape(), of_layer = inputs[layer_in].get_shape();
    const size_t rows = shape[0] * shape[1], width = shape[2], columns = of_layer[0];
    check_shape("FloatLinear", "the layer", inputs[layer_in], {columns, width + 1});
    outputs[0].set_shape({shape[0], shape[1], columns});
    if (rows == 0 || columns == 0)
        return true;
    const float *states = inputs[rows_in].data<const float>(), *layer = inputs[layer_in].data<const float>();
    float* results = outputs[0].data<float>();
    const auto compute = [&](size_t first, size_t end) {
        m_compute(states, layer + first * (width + 1), rows, width, end - first, results + first, columns);
        if (m_tanh)
            for (size_t row = 0; row < rows; ++row)
                for (float* x = results + row * columns + first; x < results + row * columns + end; ++x)
                    *x = std::tanh(*x);
    };
    const size_t grain = products_worth_a_thread / std::max<size_t>(1, rows * width) + 1;
    if (columns < 2 * grain)
        compute(0, columns);
    else
        share_tasks(columns, grain, compute);
    return true;
}

}  // namespace dynamic_tinybert
