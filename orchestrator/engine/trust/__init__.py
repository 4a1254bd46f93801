"""Keys, accounts, approvals and the audit log, kept and watched."""
