#pragma once

#include <openvino/op/op.hpp>

#include "logits_kernels.hpp"

namespace dynamic_tinybert {

/// Drop-and-restore: start and end logits of a layer's tokens, over those that earlier layers gave to all tokens.
///
/// Inputs:
/// - state: f32 [B, n, H].
/// - head: f32 [2, H + 1], for each logit its weights and, last, its bias.
/// - origins: i32 [B, n], 1 + where each token stood in the original input; 0 for one that stands nowhere.
/// - before: f32 [B, L, 2], logits of the original input's tokens.
/// Without the last two, state holds the original input's tokens.
///
/// Output: f32 [B, L, 2], `before` with the logits of `state` in the places of its tokens.
class RestoreLogits : public ov::op::Op {
public:
    OPENVINO_OP("RestoreLogits", "dynamic_tinybert");

    RestoreLogits() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    ComputeLogits m_compute = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
