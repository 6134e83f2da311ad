"""Reports events to the operator."""
