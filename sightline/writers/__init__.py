"""Who rewrites an answer: an endpoint's model, the policy itself, or the lab's oracle, each a file with its config."""
