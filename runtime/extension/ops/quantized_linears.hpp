#pragma once

#include <memory>
#include <openvino/op/op.hpp>

#include "ops/linear_chain.hpp"

namespace dynamic_tinybert {

/// Consecutive 8-bit linear layers with GELU between them; optionally a residual and LayerNorm after the last one. The
/// number of rows may change from call to call at no cost. OpenVINO's own products look up and set up a kernel whenever
/// this number changes, which happens in every layer that drops tokens.
///
/// Inputs:
/// - rows: u8 [B, L, K]; or f32 [B, L, K], which the op quantises.
/// - constants: i8 vector. It begins with the weights of each layer, i8 [N, K], K a multiple of 4, packed by the
///   kernels of `isa` (LinearKernels) unless `isa` is "any". The bytes of f32 numbers follow: unless the rows are u8, their inv_scale, [K];
///   then for each layer its scale and bias, [2, N], and, unless it is the last layer, the inv_scale of its quantised
///   result, [N]; and, if `normalizes`, gamma and beta, [2, N]. The bias compensates for the zero point of the layer's
///   rows.
/// - residual, only if `normalizes`: f32 [B, L, N]; by default the rows themselves, which must then be f32.
///
/// Output: f32 [B, L, N], y = (rows * weights) * scale + bias of the last layer; or, if `normalizes`, (x - mean) /
/// sqrt(variance + epsilon) * gamma + beta, where x = y + residual.
///
/// Attributes:
/// - widths: N of each layer. Between two layers y becomes gelu(y) = y * (1 + erf(y / sqrt(2))) / 2, and is quantised.
/// - zero_points: for each layer, the quantised value that stands for 0 in its input rows.
/// - normalizes: whether a residual is added and LayerNorm follows.
/// - epsilon: added to the variance.
/// - isa: instruction set for which the weights are packed, and whose kernels multiply them. With "any" the weights are
///   not packed: the op packs them at its first call, for the CPU that it runs on. So any CPU can run a stored graph,
///   which then holds its weights twice. The constants must be a Constant node.
/// - weight_bytes: size of each layer's weights as they are given.
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
    LinearChain m_chain;
    ChainConstants m_constants;
};

}  // namespace dynamic_tinybert
