#include "ops/context_significance.hpp"

#include <algorithm>

#include "ops/dimensions.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { protected_in, mask_in, num_inputs };

/// Writes the significance of one sequence.
void find_context(const float* is_protected, const float* mask, size_t length, float* significance) {
    std::fill_n(significance, length, 1.0f);
    bool has_context = false;
    for (size_t i = 0; i < length; ++i)
        has_context |= mask[i] == 0.0f && is_protected[i] == 0.0f;
    size_t last_real = 0;
    size_t run = 0;  // of protected tokens, up to the last real one
    for (size_t i = 0; has_context && i < length; ++i)
        if (mask[i] == 0.0f) {
            const bool continues = is_protected[i] != 0.0f;
            if (continues && run >= 2)
                significance[last_real] = 0.0f;
            run = continues ? run + 1 : 0;
            last_real = i;
        }
}

}  // namespace

std::shared_ptr<ov::Node> ContextSignificance::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<ContextSignificance>();
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void ContextSignificance::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "ContextSignificance: ", get_input_size(),
                    " inputs; give protected and mask");
    ov::Dimension batch, length;
    for (size_t input : {protected_in, mask_in}) {
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, "ContextSignificance: input ", input,
                        " is of type ", get_input_element_type(input), "; convert it to f32");
        OPENVINO_ASSERT(merge_dimensions(get_input_partial_shape(input), {&batch, &length}),
                        "ContextSignificance: the inputs have shapes ", get_input_partial_shape(protected_in), " and ",
                        get_input_partial_shape(mask_in), "; give protected and mask [B, L]");
    }
    set_output_type(0, ov::element::f32, {batch, length});
}

bool ContextSignificance::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[protected_in].get_shape();
    const float *is_protected = inputs[protected_in].data<const float>(), *mask = inputs[mask_in].data<const float>();
    check_shape("ContextSignificance", "the mask", inputs[mask_in], shape);
    outputs[0].set_shape(shape);
    float* significance = outputs[0].data<float>();
    for (size_t first = 0; first < shape[0] * shape[1]; first += shape[1])
        find_context(is_protected + first, mask + first, shape[1], significance + first);
    return true;
}

}  // namespace dynamic_tinybert
