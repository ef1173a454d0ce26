"""The training loop, the evaluation loop, and what a run keeps."""
