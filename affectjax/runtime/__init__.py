"""What a run stands on: devices, checkpoints, metric writers, configs, preemption."""
