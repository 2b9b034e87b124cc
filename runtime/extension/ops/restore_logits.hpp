#pragma once

#include <openvino/op/op.hpp>

#include "kernels/float_linear_kernels.hpp"

namespace dynamic_tinybert {

/// Drop-and-restore: start and end logits of all tokens, computed from the last state that each token had.
///
/// Inputs:
/// - head: f32 [2, H + 1], the weights of each logit followed by its bias.
/// - state: f32 [B, L, H], the states of all tokens of the original input.
/// - for each layer with fewer tokens, in order:
///   - state: f32 [B, n, H].
///   - origins: i32 [B, n], 1 + the position of each token in the original input; 0 for an unused slot.
///
/// Output: f32 [B, L, 2].
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
    FloatLinearKernel m_compute = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
