"""Facts become what an operator reads."""
