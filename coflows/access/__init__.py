"""Who may what, as pure functions: access rules, grants and their budgets, and the chain that a call carries."""
