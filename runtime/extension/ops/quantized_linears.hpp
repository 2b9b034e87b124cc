#pragma once

#include <openvino/op/op.hpp>
#include <string>
#include <vector>

#include "ops/isa.hpp"

namespace dynamic_tinybert {

/// Matrix products of 8 bits one after the other, GELU between them; and what is added to the last one and normalised.
/// The rows may be as many as they like from one call to the next: OpenVINO's own products look up and set up a kernel
/// whenever their number changes, which token dropping does in every layer.
///
/// Inputs:
/// - rows: u8 [B, L, K], or f32 [B, L, K], to be quantised by the op.
/// - constants: i8 vector. First the weights of each product, i8 [N, K], K a multiple of 4, as the kernels of `isa` have
///   packed them (LinearKernels). Then the bytes of f32 numbers: how
///   many units of the quantised rows are in 1, [K], unless rows are u8; of each product the scale of each column's sums
///   and what is added to them then (bias, less what the zero point of its rows has put into the sums), [2, N], and,
///   unless it is the last, the units of its quantised result, [N]; gamma and beta, [2, N], if there is a normalisation.
/// - residual, only if `normalizes`: f32 [B, L, N]; without it the rows themselves, f32, are added.
///
/// Output: f32 [B, L, N] of the last product, y = (rows * weights) * scale + bias; if `normalizes`,
/// (x - mean) / sqrt(variance + epsilon) * gamma + beta, where x = y + residual.
///
/// Attributes:
/// - widths: N of each product. Between two, y becomes gelu(y) = y * (1 + erf(y / sqrt(2))) / 2, and is quantised.
/// - zero_points: of the rows of each product: what 0 is quantised to.
/// - normalizes: see above.
/// - epsilon: added to the variance.
/// - isa: instruction set that the weights are packed for, and that multiplies them.
/// - weight_bytes: of each product's packed weights.
class QuantizedLinears : public ov::op::Op {
public:
    OPENVINO_OP("QuantizedLinears", "dynamic_tinybert");

    QuantizedLinears() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override;
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    std::vector<int64_t> m_widths;
    std::vector<float> m_zero_points;
    bool m_normalizes = false;
    float m_epsilon = 1e-12f;
    std::string m_isa;
    std::vector<int64_t> m_weight_bytes;
    const Kernels* m_kernels = nullptr;  // of m_isa
};

}  // namespace dynamic_tinybert
