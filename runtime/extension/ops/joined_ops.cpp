#include "ops/joined_ops.hpp"

namespace dynamic_tinybert {

bool JoinedOps::visit_attributes(ov::AttributeVisitor& visitor) {
    visitor.on_attribute("body", m_body);
    return true;
}

std::shared_ptr<ov::Node> JoinedOps::clone_with_new_inputs(const ov::OutputVector& inputs) const {
    auto copy = std::make_shared<JoinedOps>();
    copy->m_body = m_body;
    copy->m_program = m_program;
    copy->set_arguments(inputs);
    copy->constructor_validate_and_infer_types();
    return copy;
}

void JoinedOps::validate_and_infer_types() {
    OPENVINO_ASSERT(m_body, "JoinedOps: there is no body; give the model that this op evaluates");
    const ov::ParameterVector& parameters = m_body->get_parameters();
    OPENVINO_ASSERT(get_input_size() == parameters.size(), "JoinedOps: ", get_input_size(), " inputs for a body of ",
                    parameters.size(), " parameters; give one for each");
    for (size_t i = 0; i < parameters.size(); ++i)
        OPENVINO_ASSERT(get_input_element_type(i) == parameters[i]->get_element_type() &&
                            get_input_partial_shape(i).compatible(parameters[i]->get_partial_shape()),
                        "JoinedOps: input ", i, " is ", get_input_element_type(i), " ", get_input_partial_shape(i),
                        " where the body has ", parameters[i]->get_element_type(), " ",
                        parameters[i]->get_partial_shape(), "; give what the body was made for");
    if (!m_program) {
        m_program = std::make_shared<TensorProgram>(*m_body);
        get_rt_info()["program"] = static_cast<int64_t>(reinterpret_cast<uintptr_t>(m_program.get()));
    }
    // As the body knows them, although more may be known here: OpenVINO asks at every call, and must not wait for all
    // nodes of the body to infer theirs.
    for (size_t i = 0; i < m_body->get_output_size(); ++i)
        set_output_type(i, m_body->get_output_element_type(i), m_body->get_output_partial_shape(i));
}

bool JoinedOps::evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const {
    m_program->run(outputs, inputs);
    return true;
}

}  // namespace dynamic_tinybert
