#pragma once

#include <memory>
#include <openvino/core/model.hpp>
#include <openvino/op/op.hpp>

#include "ops/tensor_program.hpp"

namespace dynamic_tinybert {

/// Part of a graph as one node: its ops are evaluated one after the other, in this node. For each node of a graph whose
/// shapes are not known, OpenVINO's CPU plugin infers shapes, plans memory and copies outputs at every call, which takes
/// longer than a small op itself.
///
/// Inputs and outputs: those of the body, in the order of its parameters and results.
///
/// Attribute: body, a model whose nodes can all be evaluated by themselves. It must not be changed afterwards, as copies
/// of this op share it.
///
/// Runtime information of a node that was created with its body: program, the address of the body's program, for
/// `dynamic_tinybert_runner`.
class JoinedOps : public ov::op::Op {
public:
    OPENVINO_OP("JoinedOps", "dynamic_tinybert");

    JoinedOps() = default;

    void validate_and_infer_types() override;
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override;
    bool visit_attributes(ov::AttributeVisitor& visitor) override;
    bool has_evaluate() const override { return true; }
    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override;

private:
    std::shared_ptr<ov::Model> m_body;
    std::shared_ptr<const TensorProgram> m_program;  // of the body
};

}  // namespace dynamic_tinybert
