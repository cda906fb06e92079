"""Writers: rewrite answers; an endpoint's model, the policy itself, or the lab's oracle, each with its config."""
