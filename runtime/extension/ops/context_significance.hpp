#pragma once

#include <openvino/op/op.hpp>

namespace dynamic_tinybert {

/// Which tokens are still needed when the question's words have done their work: those of the context, and the special
/// tokens before and behind the question, on which attention rests.
///
/// Inputs:
/// - question: f32 [B, L], 1 for a protected token, that is a word of the question, [CLS] or the first [SEP]; else 0.
/// - mask: f32 [B, L], 0 for a real token and -10000 for padding.
///
/// Output: f32 [B, L], 0 for a token between two that are protected, as it is itself, 1 for every other one. All are 1
/// in a sequence that has no context. Padding is no neighbour, wherever it stands.
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
