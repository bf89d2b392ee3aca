"""What a network's outputs and the labels mean: classification, segmentation, detection. One task per file; base.py says what a task is."""

from distill_jax.tasks import classification, detection, segmentation
from distill_jax.tasks.base import Task, TrainMetrics

__all__ = ["TASKS", "Task", "TrainMetrics"]

TASKS: dict[str, Task] = {  # by data.task
    "classification": classification.TASK,
    "segmentation": segmentation.TASK,
    "detection": detection.TASK,
}
