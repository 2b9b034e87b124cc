#include "ops/restore_logits.hpp"

#include <algorithm>
#include <vector>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"
#include "ops/memory.hpp"

namespace dynamic_tinybert {
namespace {

/// Buffers of one call.
struct Scratch {
    std::vector<char> restored_before;  // [B, L]
    std::vector<float> logits;          // [tokens, 2]
};

enum Input : size_t { head_in, all_states_in, states_in };  // then the origins of these states, and further such pairs

/// Runs compute(first, count) on each stretch of neighbouring rows that are wanted.
template <typename Wanted, typename Compute>
void for_runs(size_t rows, const Wanted& wanted, const Compute& compute) {
    for (size_t i = 0; i < rows; ++i) {
        const size_t first = i;
        while (i < rows && wanted(i))
            ++i;
        if (i > first)
            compute(first, i - first);
    }
}

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
    OPENVINO_ASSERT(get_input_size() >= states_in && get_input_size() % 2 == 0, "RestoreLogits: ", get_input_size(),
                    " inputs; give head, the states of all tokens, and states and origins of each layer with fewer");
    ov::Dimension batch, length, hidden = ov::Dimension::dynamic(), two = 2;
    const auto check = [&](size_t input, const char* name, const ov::element::Type& type,
                           std::initializer_list<ov::Dimension*> dimensions) {
        OPENVINO_ASSERT(get_input_element_type(input) == type, "RestoreLogits: ", name, " (input ", input,
                        ") is of type ", get_input_element_type(input), "; convert it to ", type);
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "RestoreLogits: ", name, " (input ", input,
                        ") has shape ", shape, " beside states of all tokens of shape ",
                        get_input_partial_shape(all_states_in),
                        "; give head [2, H + 1], states of all tokens [B, L, H], other states [B, n, H] and their "
                        "origins [B, n]");
    };
    check(all_states_in, "a state", ov::element::f32, {&batch, &length, &hidden});
    check_size("RestoreLogits", "the width of the states", hidden, largest_size);
    ov::Dimension columns = hidden + 1;
    check(head_in, "the head", ov::element::f32, {&two, &columns});
    for (size_t input = states_in; input < get_input_size(); input += 2) {
        ov::Dimension tokens;
        check(input, "a state", ov::element::f32, {&batch, &tokens, &hidden});
        check(input + 1, "an origin", ov::element::i32, {&batch, &tokens});
    }
    if (!m_compute)
        m_compute = choose_kernels().float_linear;
    set_output_type(0, ov::element::f32, {batch, length, 2});
}

bool RestoreLogits::has_evaluate() const {
    return true;
}

bool RestoreLogits::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[all_states_in].get_shape();
    const size_t batch = shape[0], length = shape[1], hidden = shape[2];
    check_size("RestoreLogits", "the length", length, longest);
    check_shape("RestoreLogits", "the head", inputs[head_in], {2, hidden + 1});
    const float* head = inputs[head_in].data<const float>();
    outputs[0].set_shape({batch, length, 2});
    float* restored = outputs[0].data<float>();
    const Lent<Scratch> lent;
    std::vector<char>& restored_before = (*lent).restored_before;
    std::vector<float>& logits = (*lent).logits;
    restored_before.assign(batch * length, false);
    // From the last layer to the first, so that only the last state of each token is multiplied.
    for (size_t input = inputs.size() - 2; input >= states_in; input -= 2) {
        const size_t tokens = inputs[input].get_shape()[1];
        check_shape("RestoreLogits", "a state", inputs[input], {batch, tokens, hidden});
        check_shape("RestoreLogits", "an origin", inputs[input + 1], {batch, tokens});
        const float* states = inputs[input].data<const float>();
        const int32_t* origins = inputs[input + 1].data<const int32_t>();
        const auto place = [&](size_t i) { return i / tokens * length + origins[i] - 1; };
        const auto is_needed = [&](size_t i) {
            OPENVINO_ASSERT(origins[i] >= 0 && static_cast<size_t>(origins[i]) <= length, "RestoreLogits: origin ",
                            origins[i], " is not among the ", length, " tokens of the original input");
            return origins[i] != 0 && !restored_before[place(i)];
        };
        for_runs(batch * tokens, is_needed, [&](size_t first, size_t count) {
            m_compute(states + first * hidden, head, count, hidden, 2, at_least(logits, 2 * count), 2);
            for (size_t i = first; i < first + count; ++i) {
                std::copy_n(logits.data() + 2 * (i - first), 2, restored + 2 * place(i));
                restored_before[place(i)] = true;
            }
        });
    }
    const float* states = inputs[all_states_in].data<const float>();
    for_runs(batch * length, [&](size_t i) { return !restored_before[i]; }, [&](size_t first, size_t count) {
        m_compute(states + first * hidden, head, count, hidden, 2, restored + 2 * first, 2);
    });
    return true;
}

}  // namespace dynamic_tinybert
