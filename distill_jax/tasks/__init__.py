"""What a network's outputs and the labels mean: classification, segmentation, detection. One task a file; base.py says what a task is."""

from distill_jax.tasks import classification, segmentation
from distill_jax.tasks.base import Task, TrainMetrics

__all__ = ["TASKS", "Task", "TrainMetrics"]

TASKS: dict[str, Task] = {"classification": classification.TASK, "segmentation": segmentation.TASK}  # by data.task
