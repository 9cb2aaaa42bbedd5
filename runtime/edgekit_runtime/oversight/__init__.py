"""A person stays in charge: how far an answer may go by itself, which answers are doubtful, and who looks at them."""
