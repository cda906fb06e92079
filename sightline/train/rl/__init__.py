"""Policy gradients in the training loop: RLOO, GRPO and PPO, which differ only in their settings (`config`).

`rollouts` samples answers and scores them with a judge, `policy` computes advantages and is the task that learns from
them, `source` distributes rollouts over steps. No loss is defined here; see `sightline.losses`.
"""
