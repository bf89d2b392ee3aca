"""What a network's outputs and the labels mean: classification, segmentation, detection. One task a file; base.py says what a task is."""

from distill_jax.tasks.base import Task, TrainMetrics
from distill_jax.tasks.classification import classification
from distill_jax.tasks.detection import detection
from distill_jax.tasks.segmentation import segmentation

__all__ = ["TASKS", "Task", "TrainMetrics"]

TASKS: dict[str, Task] = {"classification": classification, "segmentation": segmentation, "detection": detection}  # by data.task
