"""A run, from top to bottom: state, epochs, steps, evaluation, checkpoint, summary."""

import contextlib
import pathlib
from typing import Any, NoReturn

import jax

from distill_jax import checkpoints, logs, processes, summary, workdir
from distill_jax.data.batches import training_batches
from distill_jax.errors import Interrupted
from distill_jax.experiment import Experiment, evaluate_network
from distill_jax.start import init_or_restore
from distill_jax.state import TrainState, check_finite, empty_metrics, saved


def train(exp: Experiment, seed: int, folder: pathlib.Path, steps_after: int = 0) -> dict[str, Any]:
    """Trains a run, or the rest of it, in its workdir; returns the content of summary.json. `steps_after`: the steps of later runs.

    Raises:
      UserError: the loss is not finite, or something cannot be read or written.
      Interrupted: by SIGTERM or SIGINT, after saving.
    """
    plan, data = exp.plan, exp.data
    init_key, step_key = jax.random.split(jax.random.key(seed))
    manager = checkpoints.open_manager(folder / "checkpoints")
    provenance = summary.provenance()  # now: the checkout may change while the run trains
    state, epoch_metrics, step = init_or_restore(exp, folder, init_key, manager)
    log = logs.RunLog(folder, plan, exp.config.log_every, step, steps_after)
    teacher_predictions = None  # of the test set; valid until the teacher changes

    with processes.preemption() as asked_to_stop, contextlib.closing(log):
        for epoch in range(step // plan.steps_per_epoch + 1, plan.epochs + 1):
            first = log.step - (epoch - 1) * plan.steps_per_epoch
            for batch in log.timed(training_batches(data.dataset.train, seed, epoch, first, plan.batch_size, data.mesh, exp.method.order)):
                state, epoch_metrics, logits = exp.train_step(state, epoch_metrics, data.train, batch, step_key)
                if exp.observe:
                    state = state.replace(teacher=exp.observe(state.teacher, batch["id"], logits))
                log.after_step(epoch_metrics)
                if stopping := asked_to_stop():
                    break

            line = log.train_line(log.step, epoch_metrics)
            check_finite(state.params, log.step)
            if log.step < epoch * plan.steps_per_epoch:
                log.write_pending()
                save_and_leave(manager, log.step, state, epoch_metrics, stopping)

            cycle_ended = epoch in plan.cycle_ends
            if cycle_ended or epoch % exp.config.eval_every == 0:
                if teacher_predictions is None and exp.predict_teacher:
                    teacher_predictions = exp.predict_teacher(state)
                line |= evaluate_network(exp, state.network, teacher_predictions, folder if epoch == plan.epochs else None)
                log.save_pictures(epoch, exp.pictures(state.network) if exp.pictures else [])
            log.end_epoch(line)

            epoch_metrics = empty_metrics(data.mesh, exp.task.train_metrics)
            teacher = exp.method.end_epoch(state.teacher, state.network, epoch)
            if exp.method.predict and (teacher is not state.teacher or exp.observe or exp.method.follow):
                teacher_predictions = None
            state = state.replace(teacher=teacher)
            if cycle_ended:
                checkpoints.save_weights(workdir.snapshot_path(folder, epoch), state.network)
            if stopping := stopping or asked_to_stop():
                save_and_leave(manager, log.step, state, epoch_metrics, stopping)
            if cycle_ended or epoch % exp.config.checkpoint_every == 0:
                checkpoints.save(manager, log.step, saved(state, epoch_metrics))

        result = summary.write(exp, seed, folder, state, log.history, provenance)
        if steps_after and (stopping := asked_to_stop()):
            raise Interrupted(stopping, "this run has ended. Repeat the command for the others")
    return result


def save_and_leave(manager: Any, step: int, state: TrainState, epoch_metrics: Any, number: int) -> NoReturn:
    checkpoints.save(manager, step, saved(state, epoch_metrics))
    raise Interrupted(number, f"saved after step {step}. Repeat the command to resume there")
