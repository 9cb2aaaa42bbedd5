"""How a second bundle is tried beside the first: shadow and canary, what they may cost, and what they tell."""
