#include "ops/select_tokens.hpp"

#include <tbb/parallel_for.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <openvino/op/constant.hpp>
#include <utility>
#include <vector>

#include "ops/dimensions.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { significance_in, mask_in, length_in, keep_ratio_in, threshold_in, origins_in };

constexpr float padding_mask = -10000.0f;
constexpr size_t tokens_worth_threads = 64 * 1024;  // below, waking a thread costs more than selecting

/// The largest number of tokens that a sequence may keep. In double, as ceil in float32 is wrong for pairs like 0.09 *
/// 300.
size_t most_kept(float keep_ratio, size_t length) {
    const double most = std::ceil(static_cast<double>(keep_ratio) * static_cast<double>(length) - 1e-4);
    return most < 1.0 ? 1 : static_cast<size_t>(most);
}

size_t round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

/// Numbers that hold for all sequences, or one for each.
class PerSequence {
public:
    PerSequence(const ov::Tensor& tensor, const char* name, size_t batch)
        : m_values(tensor.data<const float>()), m_count(tensor.get_size()) {
        OPENVINO_ASSERT(m_count == 1 || m_count == batch, "SelectTokens: ", name, " has shape ", tensor.get_shape(),
                        " for ", batch, " sequences; give one number for all, or one for each");
    }
    float operator[](size_t sequence) const {
        return m_values[m_count == 1 ? 0 : sequence];
    }
    const float* begin() const {
        return m_values;
    }
    const float* end() const {
        return m_values + m_count;
    }

private:
    const float* m_values;
    size_t m_count;
};

void check_keep_ratio(float ratio) {
    OPENVINO_ASSERT(ratio > 0.0f && ratio <= 1.0f, "SelectTokens: keep ratio ", ratio,
                    " is outside (0, 1]; 1 keeps every token");
}

void check_threshold(float threshold) {
    OPENVINO_ASSERT(threshold < std::numeric_limits<float>::infinity(), "SelectTokens: threshold ", threshold,
                    " is not a significance; give a finite number, or -inf for no threshold");
}

template <typename Numbers>
void check_all(const Numbers& numbers, void (*check)(float)) {
    std::for_each(numbers.begin(), numbers.end(), check);
}

/// Positions of the real tokens of a sequence.
std::vector<int32_t> real_tokens(const float* mask, size_t length) {
    std::vector<int32_t> tokens;
    tokens.reserve(length);
    for (size_t i = 0; i < length; ++i)
        if (mask[i] == 0.0f)
            tokens.push_back(static_cast<int32_t>(i));
    return tokens;
}

/// The tokens to keep, ascending, out of `tokens`, ascending. If `keep_first`, the first of them ranks before all others.
std::vector<int32_t> select(const std::vector<int32_t>& tokens, const float* significance, size_t most,
                            float threshold, bool keep_first) {
    const int32_t first = keep_first && !tokens.empty() ? tokens.front() : -1;
    const auto before = [=](int32_t a, int32_t b) {
        if (a == first || b == first)
            return a == first && b != first;
        return significance[a] > significance[b] || (significance[a] == significance[b] && a < b);
    };
    std::vector<int32_t> kept;
    kept.reserve(tokens.size());
    std::copy_if(tokens.begin(), tokens.end(), std::back_inserter(kept),
                 [=](int32_t token) { return token == first || significance[token] >= threshold; });
    if (kept.size() > most) {
        std::vector<int32_t> order = kept;
        const auto last = order.begin() + (most - 1);  // the last token within the keep ratio
        std::nth_element(order.begin(), last, order.end(), before);
        kept.erase(std::remove_if(kept.begin(), kept.end(), [&](int32_t token) { return before(*last, token); }),
                   kept.end());
    }
    if (kept.empty() && !tokens.empty())
        kept.push_back(*std::min_element(tokens.begin(), tokens.end(), before));
    return kept;
}

}  // namespace

SelectTokens::SelectTokens(const ov::OutputVector& inputs, int64_t multiple, bool is_static, int64_t window,
                           bool keep_first)
    : Op(inputs), m_multiple(multiple), m_static(is_static), m_window(window), m_keep_first(keep_first) {
    constructor_validate_and_infer_types();
}

bool SelectTokens::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("multiple", m_multiple);
    visitor.on_attribute("static", m_static);
    visitor.on_attribute("window", m_window);
    visitor.on_attribute("keep_first", m_keep_first);
    return true;
}

std::shared_ptr<ov::Node> SelectTokens::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    return std::make_shared<SelectTokens>(inputs, m_multiple, m_static, m_window, m_keep_first);
}

size_t SelectTokens::static_slots(float keep_ratio, size_t length) const {
    return round_up(most_kept(keep_ratio, m_window ? m_window : length), m_multiple);
}

void SelectTokens::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() == origins_in || get_input_size() == origins_in + 1, "SelectTokens: ",
                    get_input_size(), " inputs; give significance, mask, length, keep ratio and threshold, and origins "
                    "where tokens were dropped before");
    OPENVINO_ASSERT(m_multiple >= 1, "SelectTokens: multiple ", m_multiple, " must be at least 1");
    check_size("SelectTokens", "multiple", m_multiple, largest_size);
    OPENVINO_ASSERT(m_window >= 0, "SelectTokens: window ", m_window,
                    " must be a number of tokens, or 0 for the length of the input");
    check_size("SelectTokens", "window", m_window, longest - largest_size);

    ov::Dimension batch, length;
    const auto check_type = [&](size_t input, const char* name, ov::element::Type type) {
        OPENVINO_ASSERT(get_input_element_type(input) == type, "SelectTokens: ", name, " is of type ",
                        get_input_element_type(input), "; convert it to ", type);
    };
    const auto check_input = [&](size_t input, const char* name, ov::element::Type type,
                                 std::initializer_list<ov::Dimension*> dimensions) {
        check_type(input, name, type);
        const ov::PartialShape& shape = get_input_partial_shape(input);
        OPENVINO_ASSERT(merge_dimensions(shape, dimensions), "SelectTokens: ", name, " has shape ", shape,
                        " beside significance of shape ",
                        get_input_partial_shape(significance_in),
                        "; give significance, mask and origins [B, L], length [B], keep ratio and threshold [], [1] "
                        "or [B]");
    };
    check_input(significance_in, "significance", ov::element::f32, {&batch, &length});
    check_input(mask_in, "mask", ov::element::f32, {&batch, &length});
    check_input(length_in, "length", ov::element::i32, {&batch});
    for (const auto& [input, name] : {std::pair{keep_ratio_in, "keep ratio"}, std::pair{threshold_in, "threshold"}}) {
        const ov::PartialShape& shape = get_input_partial_shape(input);
        ov::Dimension one = 1, each = batch;
        if (merge_dimensions(shape, {}) || merge_dimensions(shape, {&one}))
            check_type(input, name, ov::element::f32);
        else
            check_input(input, name, ov::element::f32, {&each});
    }
    if (get_input_size() > origins_in)
        check_input(origins_in, "origins", ov::element::i32, {&batch, &length});

    const auto constant = [this](size_t input) {
        return ov::as_type_ptr<ov::op::v0::Constant>(get_input_node_shared_ptr(input));
    };
    const auto keep_ratio = constant(keep_ratio_in), threshold = constant(threshold_in);
    if (keep_ratio)
        check_all(keep_ratio->cast_vector<float>(), check_keep_ratio);
    if (threshold)
        check_all(threshold->cast_vector<float>(), check_threshold);

    ov::Dimension slots;
    if (m_static) {
        OPENVINO_ASSERT(keep_ratio && ov::shape_size(keep_ratio->get_shape()) == 1,
                        "SelectTokens: static needs a keep ratio that is a Constant, one for all sequences");
        OPENVINO_ASSERT(threshold && ov::shape_size(threshold->get_shape()) == 1 &&
                            threshold->cast_vector<float>()[0] == -std::numeric_limits<float>::infinity(),
                        "SelectTokens: static needs a threshold that is the Constant -inf; how many tokens reach "
                        "another one is not known from shapes");
        if (m_window || length.is_static())
            slots = static_slots(keep_ratio->cast_vector<float>()[0],
                                 length.is_static() ? length.get_length() : 0);
    }

    set_output_type(0, ov::element::i32, {batch, slots});
    set_output_type(1, ov::element::f32, {batch, slots});
    set_output_type(2, ov::element::i32, {batch, slots});
}

bool SelectTokens::has_evaluate() const {
    return true;
}

bool SelectTokens::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const size_t batch = inputs[significance_in].get_shape()[0];
    const size_t length = inputs[significance_in].get_shape()[1];
    const size_t window = m_window ? m_window : length;
    check_size("SelectTokens", "the length", length, longest - largest_size);
    check_shape("SelectTokens", "the mask", inputs[mask_in], {batch, length});
    check_shape("SelectTokens", "length", inputs[length_in], {batch});
    if (inputs.size() > origins_in)
        check_shape("SelectTokens", "origins", inputs[origins_in], {batch, length});
    const float* significance = inputs[significance_in].data<const float>();
    const float* mask = inputs[mask_in].data<const float>();
    const int32_t* original_length = inputs[length_in].data<const int32_t>();
    const PerSequence keep_ratio(inputs[keep_ratio_in], "keep ratio", batch);
    const PerSequence threshold(inputs[threshold_in], "threshold", batch);
    check_all(keep_ratio, check_keep_ratio);
    check_all(threshold, check_threshold);

    std::vector<std::vector<int32_t>> kept(batch);
    const auto select_in_sequence = [&](size_t b) {
        const std::vector<int32_t> tokens = real_tokens(mask + b * length, length);
        const int64_t original = original_length[b];
        OPENVINO_ASSERT(original >= static_cast<int64_t>(tokens.size()), "SelectTokens: length ", original,
                        " of sequence ", b, " is below its ", tokens.size(),
                        " real tokens; give the real length of the original input");
        OPENVINO_ASSERT(!m_static || original <= static_cast<int64_t>(window), "SelectTokens: length ",
                        original, " of sequence ", b, " exceeds ", window,
                        ", for which the slots were counted; set window to the original input's size");
        for (int32_t token : tokens)
            OPENVINO_ASSERT(std::isfinite(significance[b * length + token]), "SelectTokens: significance ",
                            significance[b * length + token], " of token ", token, " in sequence ", b,
                            " is not finite; check the model's weights and inputs");
        kept[b] = select(tokens, significance + b * length, most_kept(keep_ratio[b], original), threshold[b],
                         m_keep_first);
    };
    if (batch * length < tokens_worth_threads)
        for (size_t b = 0; b < batch; ++b)
            select_in_sequence(b);
    else
        tbb::parallel_for(size_t{0}, batch, select_in_sequence);

    size_t slots = 1;
    for (const auto& tokens : kept)
        slots = std::max(slots, tokens.size());
    slots = m_static ? static_slots(keep_ratio[0], length) : round_up(slots, m_multiple);

    for (ov::Tensor& output : outputs)
        output.set_shape({batch, slots});
    const int32_t* origins_before = inputs.size() > origins_in ? inputs[origins_in].data<const int32_t>() : nullptr;
    int32_t* positions = outputs[0].data<int32_t>();
    float* kept_mask = outputs[1].data<float>();
    int32_t* origins = outputs[2].data<int32_t>();
    std::fill_n(positions, batch * slots, static_cast<int32_t>(length));
    std::fill_n(kept_mask, batch * slots, padding_mask);
    std::fill_n(origins, batch * slots, 0);
    for (size_t b = 0; b < batch; ++b) {
        std::copy(kept[b].begin(), kept[b].end(), positions + b * slots);
        std::fill_n(kept_mask + b * slots, kept[b].size(), 0.0f);
        for (size_t i = 0; i < kept[b].size(); ++i)
            origins[b * slots + i] = origins_before ? origins_before[b * length + kept[b][i]] : kept[b][i] + 1;
    }
    return true;
}

}  // namespace dynamic_tinybert
