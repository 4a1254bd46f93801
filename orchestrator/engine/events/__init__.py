"""Events for operators: what the audit log says, brought to those who want to hear of it."""
