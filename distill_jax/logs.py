"""A run's log: metrics.jsonl, TensorBoard, and console output. With multiple processes, the first one writes it."""

import contextlib
import json
import math
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax
from tensorboard.summary import Writer

from distill_jax import files, picture_files, processes, terminal, workdir
from distill_jax.errors import Diverged, UserError

DIVERGED = (
    "the checkpoints are from before that. Training diverged: try a lower optimizer.learning_rate, or check the weights and "
    "temperatures of the loss (method.*), in a new --workdir"
)
# By the names of their functions.
PROGRAMS = {"init_network": "the initialisation", "train_step": "the train step", "predict_batch": "the evaluation"}
COMPILING = tuple(f"/jax/core/compile/{part}_duration" for part in ("jaxpr_trace", "jaxpr_to_mlir_module", "backend_compile"))
MOVES_EVERY = 1.0  # seconds, the progress line


class RunLog:
    """Records the progress of a run.

    Args:
      folder: its workdir.
      plan: its shape, a plan.Plan.
      log_every: steps between lines within an epoch.
      step: finished steps at the start. Lines of later steps, left by a run that was killed after its last checkpoint, are dropped,
        since they will be written again.
      steps_after: steps of later runs, to estimate the time left.
    """

    def __init__(self, folder: pathlib.Path, plan: Any, log_every: int, step: int, steps_after: int = 0):
        self.folder, self.plan, self.log_every, self.step, self.steps_after = folder, plan, log_every, step, steps_after
        self.history = [line for line in files.read_jsonl(folder / "metrics.jsonl") if line["step"] <= step]
        check_complete(folder / "metrics.jsonl", self.history, plan, step)
        workdir.write_text(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in self.history))
        self._file = (folder / "metrics.jsonl").open("a") if processes.is_first() else None
        self._tensorboard = rewritten_events(folder, self.history) if processes.is_first() else None
        self._pictures = picture_files.events(folder) if processes.is_first() and (folder / "pictures").exists() else None
        if self._pictures:
            picture_files.add_events(self._pictures, folder, self._step_of, range(step // plan.steps_per_epoch + 1))
        self._pending = None  # (step, metrics) of a line still being computed
        self._finite_until = self._first_step = step
        self._clock = None  # (step, seconds) at which timing of this epoch began
        self._waited = 0.0  # seconds spent waiting for data since then
        self._start = self._last_end = self._shown = time.perf_counter()
        self._timed = None  # (step, seconds) after the first step, which may include compilation
        self._seconds_before = max((line.get("wall_seconds", 0.0) for line in self.history), default=0.0)

    def timed(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yields the batches, and counts the time spent waiting for them."""
        batches = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def after_step(self, epoch_metrics: Any) -> None:
        """Counts a dispatched step, and logs the epoch so far every `log_every` steps.

        A line is written after the next step has been dispatched, so that the device does not wait for the host.
        """
        self.step += 1
        if self._clock is None:
            jax.block_until_ready(epoch_metrics)  # an epoch's first step may include compilation, so the clock starts after it
            self._clock, self._waited = (self.step, time.perf_counter()), 0.0
            self._timed = self._timed or self._clock
        self.write_pending()
        self._move()
        if self.step % self.log_every == 0 and self.step % self.plan.steps_per_epoch:
            self._pending = (self.step, epoch_metrics)

    def _move(self) -> None:
        """Moves the progress line, at most once in `MOVES_EVERY` seconds. It counts dispatched steps: it must not wait for the device."""
        now = time.perf_counter()
        if now - self._shown < MOVES_EVERY or self.step == self._timed[0]:
            return
        self._shown, steps_per_epoch = now, self.plan.steps_per_epoch
        epoch, in_epoch = divmod(self.step - 1, steps_per_epoch)
        loss = f"loss {self.history[-1]['loss']:.4f}  " if self.history else ""
        where = f"epoch {epoch + 1}/{self.plan.epochs}  step {in_epoch + 1}/{steps_per_epoch} of the epoch"
        show_progress(f"{where}  {loss}{self._time_left(self.step)}")

    def train_line(self, step: int, epoch_metrics: Any) -> dict[str, float]:
        """The line for a step: means since the start of the epoch. Waits for the device.

        Raises:
          Diverged: the loss is not finite.
        """
        means = {name: float(value) for name, value in jax.device_get(epoch_metrics).compute().items()}
        if not math.isfinite(means["loss"]):
            raise Diverged(f"the loss is not finite; this began in steps {self._finite_until + 1} to {step}; {DIVERGED}")
        self._finite_until = step
        clock_step, clock_seconds = self._clock
        now = time.perf_counter()
        if step == clock_step:  # an epoch of one step: since the end of the last one, including compilation and checkpoints
            clock_step, clock_seconds = step - 1, self._last_end
        seconds = now - clock_seconds
        epoch = (step - 1) // self.plan.steps_per_epoch + 1
        return {
            "step": step,
            "epoch": epoch,
            "cycle": sum(epoch > end for end in self.plan.cycle_ends) + 1,
            "learning_rate": float(self.plan.learning_rates[step - 1]),
            **means,
            "images_per_second": (step - clock_step) * self.plan.batch_size / seconds,
            "data_wait": self._waited / seconds,  # fraction of the time the loop waited for a batch
            "wall_seconds": self._seconds_before + now - self._start,
        }

    def end_epoch(self, line: dict[str, float]) -> None:
        """Writes and prints the line of a finished epoch: `train_line`, plus the test metrics if it was evaluated."""
        self._write(line)
        clear_progress()
        say(self._sentence(line))
        self._clock, self._last_end = None, time.perf_counter()

    def save_pictures(self, epoch: int, drawn: list[Any]) -> None:
        """Writes the pictures of an evaluation, uint8 [H, W, 3] each, to the workdir and to TensorBoard."""
        if drawn and self._file:
            picture_files.save(self.folder, epoch, drawn)
            self._pictures = self._pictures or picture_files.events(self.folder)
            picture_files.add_events(self._pictures, self.folder, self._step_of, range(epoch, epoch + 1))

    def _step_of(self, epoch: int) -> int:
        return epoch * self.plan.steps_per_epoch

    def write_pending(self) -> None:
        """Writes the line that waits for the next step."""
        if self._pending:
            step, epoch_metrics = self._pending
            self._pending = None
            self._write(self.train_line(step, epoch_metrics))

    def close(self) -> None:
        clear_progress()
        if self._file:
            self._file.close()
            self._tensorboard.close()
        if self._pictures:
            self._pictures.close()

    def _write(self, line: dict[str, float]) -> None:
        self.history.append(line)
        if not self._file:
            return
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        add_event(self._tensorboard, line)

    def _sentence(self, line: dict[str, float]) -> str:
        result, name = line.get(self.plan.result), "" if self.plan.metric == "accuracy" else f" {self.plan.metric}"
        evaluated = "" if result is None else f"{self.plan.evaluated_on}{name} {result:6.2%}  "
        trained = f"train {line['train_accuracy']:6.2%}  " if "train_accuracy" in line else ""
        return (
            f"epoch {line['epoch']}/{self.plan.epochs}  step {line['step']}  cycle {line['cycle']}/{len(self.plan.cycle_ends)}  "
            f"lr {line['learning_rate']:.4f}  loss {line['loss']:.4f}  {trained}{evaluated}"
            f"{line['images_per_second']:.0f} examples/s  {self._time_left(line['step'])}"
        )

    def _time_left(self, step: int) -> str:
        """The time left for this run and, if others follow, for all: an estimate, since their steps may be faster or slower."""
        first, since = self._timed if self._timed and step > self._timed[0] else (self._first_step, self._start)
        seconds_a_step, left = (time.perf_counter() - since) / max(step - first, 1), self.plan.steps - step
        others = f", about {duration(seconds_a_step * (left + self.steps_after))} for all runs" if self.steps_after else ""
        return f"{duration(seconds_a_step * left)} left{others}"


def check_complete(path: pathlib.Path, history: list[dict[str, Any]], plan: Any, step: int) -> None:
    """Raises UserError if the log of a run to be resumed lacks an epoch: its best result would be that of the others."""
    logged = {line["step"] for line in history}
    for epoch in range(1, step // plan.steps_per_epoch + 1):
        if epoch * plan.steps_per_epoch not in logged:
            raise UserError(f"{path} lacks the line of epoch {epoch}; restore the file, or choose another --workdir")


def rewritten_events(folder: pathlib.Path, history: list[dict[str, float]]) -> Writer:
    """Rewrites a run's TensorBoard events from its lines; otherwise points after the last checkpoint would remain."""
    for path in folder.glob("events.out.*"):
        path.unlink()
    writer = Writer(str(folder))
    for line in history:
        add_event(writer, line)
    return writer


def add_event(writer: Writer, line: dict[str, float]) -> None:
    for name, value in line.items():
        if name != "step":
            writer.add_scalar(name, value, line["step"])


def say(text: str) -> None:
    """Prints one line in place of the progress line, on the first process only."""
    if processes.is_first():
        terminal.show("")
        print(text, flush=True)


def show_progress(text: str) -> None:
    """Shows a line that the next one replaces; on a terminal only."""
    if processes.is_first():
        terminal.show(text)


def clear_progress() -> None:
    show_progress("")


@contextlib.contextmanager
def announced_compilation() -> Iterator[None]:
    """Within the context, says that a program of a run compiles and, if that takes a second or more, how long it took."""
    spent = dict.fromkeys(PROGRAMS, 0.0)

    def listen(event: str, seconds: float, fun_name: str = "", **_: Any) -> None:
        name = fun_name.removeprefix("jit(").removesuffix(")")
        if event not in COMPILING or name not in PROGRAMS:
            return
        spent[name] += seconds
        if event != COMPILING[-1]:
            show_progress(f"compiling {PROGRAMS[name]} ...")
            return
        clear_progress()
        if spent[name] >= 1:
            say(f"compiled {PROGRAMS[name]} in {spent[name]:.0f} s")
        spent[name] = 0.0

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def duration(seconds: float) -> str:
    """h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
