#pragma once

#include <openvino/op/op.hpp>

#include "layer_norm_kernels.hpp"

namespace dynamic_tinybert {

/// The sum of two tensors, normalised over its last axis; and the same as the next matrix product reads it, in 8 bits.
///
/// Inputs: two f32 [B, L, D]; f32 [2, D] or [3, D], whose rows are gamma, beta and how many quantised units are in 1.
///
/// Outputs: state f32 [B, L, D] = (x - mean) / sqrt(variance + epsilon) * gamma + beta, where x is the sum; with a
/// third row, quantized u8 [B, L, D] = state * units + zero_point, rounded to even and held within 0 ... 255.
///
/// Attributes:
/// - epsilon: added to the variance.
/// - zero_point: what 0 is quantised to.
class ResidualLayerNorm : public ov::op::Op {
public:
    OPENVINO_OP("ResidualLayerNorm", "dynamic_tinybert");

    ResidualLayerNorm() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    float m_epsilon = 1e-12f;
    float m_zero_point = 0.0f;
    AddAndNormalize m_add_and_normalize = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
