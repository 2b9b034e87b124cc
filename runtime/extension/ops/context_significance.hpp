#pragma once

#include <openvino/op/op.hpp>

namespace dynamic_tinybert {

/// The context rule: significance that drops the words of the question, for layers after which they are no longer
/// needed. The context stays, and so do the special tokens around the question, which receive much attention.
///
/// Inputs:
/// - protected: f32 [B, L], 1 for [CLS], a word of the question and the first [SEP]; else 0.
/// - mask: f32 [B, L], 0 for a real token and -10000 for padding.
///
/// Output: f32 [B, L], 0 for a protected token between two other protected ones, 1 for every other token. In a sequence
/// without context, all are 1. Padding does not count as a neighbour.
class ContextSignificance : public ov::op::Op {
public:
    OPENVINO_OP("ContextSignificance", "dynamic_tinybert");

    ContextSignificance() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;
};

}  // namespace dynamic_tinybert
