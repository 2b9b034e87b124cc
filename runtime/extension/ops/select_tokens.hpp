#pragma once

#include <openvino/op/op.hpp>

namespace dynamic_tinybert {

/// Chooses the tokens of each sequence that go on to the next layer: the most significant ones, in their order. Gather
/// then copies their rows, because OpenVINO would copy the output of an op whose shape depends on data a second time.
///
/// Inputs: significance f32 [B, L]; mask f32 [B, L], exactly 0 for a real token; length i32 [B], real tokens of the
/// sequence before any layer dropped one; keep ratio f32 in (0, 1]; threshold f32, -inf for none; where an earlier layer
/// dropped tokens, the third output of the last one, i32 [B, L]. Keep ratio and threshold are a scalar or [1] for all
/// sequences, or [B], one for each.
///
/// Outputs: the positions of the kept tokens in this input i32 [B, n]; their mask f32 [B, n]; their origins i32 [B, n],
/// 1 + the position in the input of the first layer that selects.
///
/// A sequence keeps at most max(1, ceil(keep ratio * length - 1e-4)) of its real tokens, those of the largest
/// significance (the lower position first among equals), and of these only those that reach the threshold, or the most
/// significant one if none does. Unused slots of a sequence have position L, mask -10000 and origin 0. Which tokens a
/// sequence keeps does not depend on the rest of the batch.
///
/// Attributes:
/// - multiple: n, the largest number of tokens that a sequence keeps, is rounded up to a multiple of this.
/// - static: n is ceil(keep ratio * window - 1e-4) rounded up instead, known from shapes alone. Keep ratio and
///   threshold must then be constant scalars, the threshold -inf, and no length may exceed the window.
/// - window: length of the graph's input, with padding, before any layer dropped a token; 0 means L.
/// - keep_first: the first real token of a sequence ranks before all others, and is kept whatever its significance.
///
/// Refused with ov::AssertFailure: a ratio outside (0, 1], a threshold that is NaN or +inf, a real token's significance
/// that is not finite, a length below the number of real tokens.
class SelectTokens : public ov::op::Op {
public:
    OPENVINO_OP("SelectTokens", "dynamic_tinybert");

    SelectTokens() = default;
    SelectTokens(const ov::OutputVector& inputs, int64_t multiple, bool is_static, int64_t window, bool keep_first);

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    size_t static_slots(float keep_ratio, size_t length) const;

    int64_t m_multiple = 1;
    bool m_static = false;
    int64_t m_window = 0;
    bool m_keep_first = false;
};

}  // namespace dynamic_tinybert
