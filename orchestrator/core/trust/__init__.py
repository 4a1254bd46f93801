"""Who may do what, who must agree, what is kept of it, and what expires."""
