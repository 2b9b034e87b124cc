#pragma once

#include <openvino/op/op.hpp>

#include "kernels/float_linear_kernels.hpp"

namespace dynamic_tinybert {

/// A linear layer in f32 for few rows, such as the first tokens of a batch: OpenVINO's own product prepares kernels for
/// each number of rows.
///
/// Inputs:
/// - rows: f32 [B, L, K].
/// - layer: f32 [N, K + 1], the weights of each column followed by its bias.
///
/// Attribute: tanh, whether the hyperbolic tangent is applied to the results.
///
/// Output: f32 [B, L, N]. A number does not depend on other rows, nor on the number of threads.
class FloatLinear : public ov::op::Op {
public:
    OPENVINO_OP("FloatLinear", "dynamic_tinybert");

    FloatLinear() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    bool m_tanh = false;
    FloatLinearKernel m_compute = nullptr;  // chosen once; copies of the op keep it
};

}  // namespace dynamic_tinybert
