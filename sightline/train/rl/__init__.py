"""Policy gradients on the one loop: RLOO, GRPO and PPO, told apart by their settings (`config`) and by nothing else.

`sampling` lets the policy answer and a judge score, `credit` turns scores into advantages, `source` deals the rollouts
out to steps, `policy` is the task that learns from them. No loss is defined here; those are `sightline.losses`.
"""
