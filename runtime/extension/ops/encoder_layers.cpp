#include "ops/encoder_layers.hpp"

#include <algorithm>
#include <openvino/op/constant.hpp>

#include "ops/dimensions.hpp"
#include "ops/encoder_pass.hpp"
#include "ops/isa.hpp"

namespace dynamic_tinybert {
namespace {

enum Input : size_t { state_in, mask_in, numbers_in, constants_in };

constexpr const char* op = "EncoderLayers";

}  // namespace

bool EncoderLayers::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("inner_widths", m_inner_widths);
    visitor.on_attribute("heads", m_heads);
    visitor.on_attribute("zero_points", m_zero_points);
    visitor.on_attribute("isa", m_isa);
    visitor.on_attribute("weight_bytes", m_weight_bytes);
    return true;
}

std::shared_ptr<ov::Node> EncoderLayers::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<EncoderLayers>();
    copy->m_inner_widths = m_inner_widths;
    copy->m_heads = m_heads;
    copy->m_zero_points = m_zero_points;
    copy->m_isa = m_isa;
    copy->m_weight_bytes = m_weight_bytes;
    copy->m_halves = m_halves;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

std::shared_ptr<const EncoderLayers::Halves> EncoderLayers::checked() const {
    const size_t halves = m_inner_widths.size(), hidden = get_input_partial_shape(state_in)[2].get_length();
    check_size(op, "the number of halves", halves, largest_size);
    OPENVINO_ASSERT(halves > 0 && m_zero_points.size() == 2 * halves && m_weight_bytes.size() == 2 * halves, op, ": ",
                    halves, " inner_widths, ", m_zero_points.size(), " zero_points and ", m_weight_bytes.size(),
                    " weight_bytes; give one for each half, and two of the others");
    const auto* numbers = ov::as_type<const ov::op::v0::Constant>(get_input_node_ptr(numbers_in));
    OPENVINO_ASSERT(numbers && numbers->get_element_type() == ov::element::f32 &&
                        numbers->get_shape() == ov::Shape({2, halves}),
                    op, ": the numbers are ", get_input_element_type(numbers_in), " of shape ",
                    get_input_partial_shape(numbers_in), ", computed by ",
                    get_input_node_ptr(numbers_in)->get_type_name(), "; give a Constant, f32 [2, ", halves, "]");
    const float *inv_scales = numbers->get_data_ptr<float>(), *epsilons = inv_scales + halves;
    check_size(op, "heads", m_heads, largest_size);
    OPENVINO_ASSERT(m_heads > 0 && hidden % m_heads == 0, op, ": states of ", hidden, " numbers for ", m_heads,
                    " heads; give a multiple of their number");
    auto found = std::make_shared<Halves>();
    found->inv_scales.assign(inv_scales, epsilons);
    size_t input = constants_in;
    const auto add = [&](size_t half, size_t first, std::vector<int64_t> widths, bool quantizes, bool normalizes) {
        OPENVINO_ASSERT(input < get_input_size(), op, ": ", get_input_size(), " inputs for ", halves,
                        " halves; give state, mask, numbers and the constants of each half");
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::i8, op, ": input ", input, " is of type ",
                        get_input_element_type(input), "; give constants in i8");
        auto part = std::make_unique<Part>();
        LinearChain& chain = part->chain;
        const size_t from = 2 * half + first, to = from + widths.size();
        chain.zero_points.assign(m_zero_points.begin() + from, m_zero_points.begin() + to);
        chain.weight_bytes.assign(m_weight_bytes.begin() + from, m_weight_bytes.begin() + to);
        chain.widths = std::move(widths);
        chain.normalizes = normalizes;
        chain.epsilon = epsilons[half];
        chain.isa = m_isa;
        chain.check(op, hidden, quantizes, get_input_partial_shape(input));
        OPENVINO_ASSERT(!chain.packs() || ov::is_type<ov::op::v0::Constant>(get_input_node_ptr(input)), op,
                        ": input ", input, " is computed by ", get_input_node_ptr(input)->get_type_name(),
                        "; weights can be packed here only if they are a Constant");
        part->input = input++;
        part->quantizes = quantizes;
        found->parts.push_back(std::move(part));
    };
    const int64_t width = hidden;
    for (size_t half = 0; half < halves; ++half) {
        const int64_t inner = m_inner_widths[half];
        OPENVINO_ASSERT(inner >= 0, op, ": inner width ", inner, " of half ", half,
                        "; give 0 for an attention half, or the width of the feed-forward part");
        if (inner > 0) {
            add(half, 0, {inner, width}, true, true);
        } else {
            OPENVINO_ASSERT(inv_scales[half] > 0.0f, op, ": inv_scale ", inv_scales[half],
                            " of an attention half; it must be above 0");
            add(half, 0, {3 * width}, true, false);
            add(half, 1, {width}, false, true);
        }
    }
    OPENVINO_ASSERT(input == get_input_size(), op, ": ", get_input_size(), " inputs where ", halves, " halves need ",
                    input);
    found->attention = found->parts.front()->chain.kernels->attention_int16;
    return found;
}

void EncoderLayers::validate_and_infer_types() {
    OPENVINO_ASSERT(get_input_size() > constants_in, op, ": ", get_input_size(),
                    " inputs; give state, mask, numbers and the constants of each half");
    for (size_t input : {state_in, mask_in})
        OPENVINO_ASSERT(get_input_element_type(input) == ov::element::f32, op, ": input ", input, " is of type ",
                        get_input_element_type(input), "; convert it to f32");
    ov::Dimension batch, length, hidden;
    OPENVINO_ASSERT(merge_dimensions(get_input_partial_shape(state_in), {&batch, &length, &hidden}) &&
                        merge_dimensions(get_input_partial_shape(mask_in), {&batch, &length}) && hidden.is_static(),
                    op, ": the state has shape ", get_input_partial_shape(state_in), " and the mask ",
                    get_input_partial_shape(mask_in), "; give [B, L, H], H known, and [B, L]");
    if (!m_halves)
        m_halves = checked();
    set_output_type(0, ov::element::f32, {batch, length, hidden});
}

bool EncoderLayers::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    const ov::Shape shape = inputs[state_in].get_shape();
    check_size(op, "the length", shape[1], longest);
    check_shape(op, "the mask", inputs[mask_in], {shape[0], shape[1]});
    outputs[0].set_shape(shape);
    if (ov::shape_size(shape) == 0)
        return true;
    std::vector<BoundChain> chains;
    chains.reserve(m_halves->parts.size());
    for (const auto& part : m_halves->parts) {
        const ov::Tensor& constants = inputs[part->input];
        check_shape(op, "a half's constants", constants, {part->chain.size_of_constants(shape[2], part->quantizes)});
        chains.push_back(part->constants.bind(part->chain, shape[2], part->quantizes, constants.data<const int8_t>(),
                                              *get_input_node_ptr(part->input)));
    }
    std::vector<EncoderHalf> halves(m_inner_widths.size());
    size_t part = 0;
    for (size_t half = 0; half < halves.size(); ++half) {
        halves[half].first = &chains[part++];
        if (m_inner_widths[half] == 0) {
            halves[half].output = &chains[part++];
            halves[half].inv_scale = m_halves->inv_scales[half];
        }
    }
    EncoderBatch batch{};
    batch.batch = shape[0];
    batch.length = shape[1];
    batch.hidden = shape[2];
    batch.heads = m_heads;
    batch.state = inputs[state_in].data<const float>();
    batch.mask = inputs[mask_in].data<const float>();
    batch.result = outputs[0].data<float>();
    compute_halves(*m_halves->attention, halves, batch);
    return true;
}

}  // namespace dynamic_tinybert
