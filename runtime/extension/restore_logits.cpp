#include "restore_logits.hpp"

#include <algorithm>
#include <vector>

#include "dimensions.hpp"
#include "isa.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { state_in, head_in, origins_in, before_in, num_inputs };

}  // namespace

bool RestoreLogits::visit_attributes(ov::AttributeVisitor&) {
    return true;
}

std::shared_ptr<ov::Node> RestoreLogits::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<RestoreLogits>();
    copy->m_compute = m_compute;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void RestoreLogits::validate_and_infer_types() {
    const bool restores = get_input_size() > origins_in;
    OPENVINO_ASSERT(get_input_size() == origins_in || get_input_size() == num_inputs, "RestoreLogits: ",
                    get_input_size(), " inputs; give state and head, or also origins and the logits before");
    ov::Dimension batch, tokens, length, hidden = ov::Dimension::dynamic(), two = 2;
    const auto check = [&](size_t input, const char* name, const ov::element::Type& type,
                           std::initializer_list<ov::Dimension*> dimensions) {
        OPENVINO_ASSERT(get_input_element_type(input) == type, "RestoreLogits: ", name, " is of type ",
                        get_input_element_type(input), "; convert it to ", type);
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "RestoreLogits: ", name, " has shape ", shape,
                        " beside a state of shape ",
                        get_input_partial_shape(state_in),
                        "; give state [B, n, H], head [2, H + 1], origins [B, n], logits before [B, L, 2]");
    };
    check(state_in, "the state", ov::element::f32, {&batch, &tokens, &hidden});
    ov::Dimension columns = hidden + 1;
    check(head_in, "the head", ov::element::f32, {&two, &columns});
    if (restores) {
        check(origins_in, "origins", ov::element::i32, {&batch, &tokens});
        check(before_in, "what was before", ov::element::f32, {&batch, &length, &two});
    }
    if (!m_compute)
        m_compute = choose_kernels().compute_logits;
    set_output_type(0, ov::element::f32, {batch, restores ? length : tokens, 2});
}

bool RestoreLogits::has_evaluate() const {
    return true;
}

bool RestoreLogits::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    const size_t batch = shape[0], tokens = shape[1], hidden = shape[2];
    const float *state = inputs[state_in].data<const float>(), *head = inputs[head_in].data<const float>();
    if (inputs.size() == origins_in) {
        outputs[0].set_shape({batch, tokens, 2});
        m_compute(state, head, batch * tokens, hidden, outputs[0].data<float>());
        return true;
    }
    const size_t length = inputs[before_in].get_shape()[1];
    outputs[0].set_shape({batch, length, 2});
    float* restored = outputs[0].data<float>();
    std::copy_n(inputs[before_in].data<const float>(), batch * length * 2, restored);
    thread_local std::vector<float> logits;
    logits.resize(batch * tokens * 2);
    m_compute(state, head, batch * tokens, hidden, logits.data());
    const int32_t* origins = inputs[origins_in].data<const int32_t>();
    for (size_t i = 0; i < batch * tokens; ++i) {
        const int32_t origin = origins[i];
        if (origin == 0)
            continue;
        OPENVINO_ASSERT(origin > 0 && static_cast<size_t>(origin) <= length, "RestoreLogits: origin ", origin,
                        " is not among the ", length, " tokens of the original input");
        std::copy_n(logits.data() + 2 * i, 2, restored + (i / tokens * length + origin - 1) * 2);
    }
    return true;
}

}  // namespace dynamic_tinybert
