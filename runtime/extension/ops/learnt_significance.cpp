#include "ops/learnt_significance.hpp"

#include <algorithm>
#include <openvino/op/constant.hpp>

#include "ops/dimensions.hpp"
#include "ops/isa.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { state_in, protected_in, mask_in, scorer_in, num_inputs };

/// Whether a real token follows padding in any sequence.
bool has_holes(const float* mask, size_t batch, size_t length) {
    for (size_t i = 1; i < batch * length; ++i)
        if (mask[i] == 0.0f && mask[i - 1] != 0.0f && i % length)
            return true;
    return false;
}

/// Moves the rows of each sequence's real tokens to its front; the other rows follow.
void pack_rows(const float* mask, size_t batch, size_t length, const float* from, size_t width, float* to) {
    for (size_t b = 0; b < batch; ++b, mask += length, from += length * width)
        for (const bool real : {true, false})
            for (size_t i = 0; i < length; ++i)
                if ((mask[i] == 0.0f) == real)
                    to = std::copy_n(from + i * width, width, to);
}

}  // namespace

bool LearntSignificance::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("width", m_width);
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("head_size", m_head_size);
    visitor.on_attribute("kernel_sizes", m_kernel_sizes);
    visitor.on_attribute("int12", m_int12);
    return true;
}

std::shared_ptr<ov::Node> LearntSignificance::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<LearntSignificance>();
    copy->m_width = m_width;
    copy->m_heads = m_heads;
    copy->m_head_size = m_head_size;
    copy->m_kernel_sizes = m_kernel_sizes;
    copy->m_int12 = m_int12;
    copy->m_kernels = m_kernels;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void LearntSignificance::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == num_inputs, "LearntSignificance: ", get_input_size(),
                    " inputs; give state, protected, mask and the scorer's tensors");
    OPENVINO_ASSERT(m_width > 0 && m_width % scorer_columns == 0, "LearntSignificance: width ", m_width,
                    " is not a multiple of ", scorer_columns, "; pad the scorer with zeros");
    OPENVINO_ASSERT(m_heads > 0 && m_head_size > 0, "LearntSignificance: ", m_heads, " heads of ", m_head_size,
                    " numbers; give at least one of each");
    for (int64_t size : m_kernel_sizes) {
        OPENVINO_ASSERT(size > 0 && size % 2 == 1, "LearntSignificance: a convolution sees ", size,
                        " tokens; it must be an odd number, to centre on one");
        check_size("LearntSignificance", "the number of tokens that a convolution sees", size, largest_size);
    }
    check_size("LearntSignificance", "width", m_width, largest_size);
    check_size("LearntSignificance", "heads", m_heads, largest_size);
    check_size("LearntSignificance", "head_size", m_head_size, largest_size);
    check_size("LearntSignificance", "the number of convolutions", m_kernel_sizes.size(), largest_size);
    ov::Dimension batch, length, hidden, size;
    const auto check = [&](size_t input, const char* name, std::initializer_list<ov::Dimension*> dimensions) {
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, "LearntSignificance: ", name,
                        " is of type ", get_input_element_type(input), "; convert it to f32");
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "LearntSignificance: ", name, " has shape ", shape,
                        " beside a state of shape ",
                        get_input_partial_shape(state_in),
                        "; give state [B, L, H], protected and mask [B, L], the scorer's tensors as one vector");
    };
    check(state_in, "the state", {&batch, &length, &hidden});
    check(protected_in, "protected", {&batch, &length});
    check(mask_in, "the mask", {&batch, &length});
    check(scorer_in, "the scorer", {&size});
    check_size("LearntSignificance", "the width of the states", hidden, largest_size);
    m_shape.width = m_width;
    m_shape.heads = m_heads;
    m_shape.head_size = m_head_size;
    m_shape.kernel_sizes.assign(m_kernel_sizes.begin(), m_kernel_sizes.end());
    OPENVINO_ASSERT(hidden.is_dynamic() || size.compatible(m_shape.floats(hidden.get_length())),
                    "LearntSignificance: the scorer has ", size, " numbers where width ", m_width,
                    " and states as wide as ", hidden, " need ", m_shape.floats(hidden.get_length()));
    if (!m_kernels) {
        const Kernels& kernels = choose_kernels();
        m_kernels = m_int12 ? kernels.scorer_int12 : kernels.scorer_f32;
    }
    set_output_type(0, ov::element::f32, {batch, length});
}

/// Packs the columns of a constant once, so that calls need not read and convert them again. Callers share ownership of
/// the result, because another thread may replace it.
std::shared_ptr<const LearntSignificance::Floats> LearntSignificance::packed(const float* columns,
                                                                             size_t hidden) const {
    const bool is_constant = ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(scorer_in));
    const std::lock_guard<std::mutex> lock(m_packing);
    if (is_constant && m_packed && m_packed_from == columns)
        return m_packed;
    const auto floats = std::make_shared<Floats>(m_kernels->packed_size(hidden, m_shape.num_panels()));
    const ScorerPanels panels{columns, floats->data(), hidden, m_shape.num_panels()};
    for (size_t panel = 0; panel < panels.count; ++panel)
        m_kernels->pack(panels, panel, floats->data());
    m_packed = floats;
    m_packed_from = columns;
    return m_packed;
}

bool LearntSignificance::has_evaluate() const {
    return true;
}

/// Computes sequences with padding between their real tokens, which are moved side by side first: convolutions must see
/// the same neighbours as without the padding.
void LearntSignificance::evaluate_with_holes(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    const size_t batch = shape[0], length = shape[1];
    const float *is_protected = inputs[protected_in].data<const float>(), *mask = inputs[mask_in].data<const float>();
    ov::TensorVector packed_outputs{{ov::element::f32, {batch, length}}}, packed_inputs = inputs;
    for (size_t input : {state_in, protected_in, mask_in}) {
        packed_inputs[input] = {ov::element::f32, inputs[input].get_shape()};
        pack_rows(mask, batch, length, inputs[input].data<const float>(), input == state_in ? shape[2] : 1,
                  packed_inputs[input].data<float>());
    }
    evaluate(packed_outputs, packed_inputs);
    outputs[0].set_shape({batch, length});
    const float* significance = packed_outputs[0].data<const float>();
    for (size_t b = 0, token = 0; b < batch; ++b, token = b * length)
        for (size_t i = b * length; i < (b + 1) * length; ++i)
            outputs[0].data<float>()[i] = mask[i] == 0.0f ? significance[token++] : is_protected[i];
}

bool LearntSignificance::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    const size_t batch = shape[0], length = shape[1], hidden = shape[2];
    check_shape("LearntSignificance", "protected", inputs[protected_in], {batch, length});
    check_shape("LearntSignificance", "the mask", inputs[mask_in], {batch, length});
    check_size("LearntSignificance", "the width of the states", hidden, largest_size);
    check_shape("LearntSignificance", "the scorer", inputs[scorer_in], {m_shape.floats(hidden)});
    const float* mask = inputs[mask_in].data<const float>();
    if (has_holes(mask, batch, length)) {
        evaluate_with_holes(outputs, inputs);
        return true;
    }
    const float* columns = inputs[scorer_in].data<const float>();
    const auto packed_columns = packed(columns, hidden);
    const ScorerPanels panels{columns, packed_columns->data(), hidden, m_shape.num_panels()};
    const ScorerInputs scorer_inputs{inputs[state_in].data<const float>(),
                                     inputs[protected_in].data<const float>(),
                                     mask,
                                     batch,
                                     length,
                                     hidden};
    outputs[0].set_shape({batch, length});
    compute_significance(*m_kernels, m_shape, panels, columns + m_shape.floats_of_panels(hidden), scorer_inputs,
                         outputs[0].data<float>());
    return true;
}

}  // namespace dynamic_tinybert
