"""Trains, evaluates or uses the networks that a config describes.

python run.py                                  # the quickstart: Snapshot Distillation on digits
python run.py --config=configs/sd_cifar100.py --config.data.dir=DIR --workdir=/data/sd  # repeat the command to resume the run
python run.py --workdir=/data/sd --mode=eval   # a trained run needs no config
python run.py --workdir=/data/sd --mode=predict --inputs=photos > photos.csv
python run.py --workdir=/data/sd --mode=export --format=stablehlo
srun python run.py --distributed --config=configs/sd_imagenet.py --config.data.dir=DIR --workdir=/data/sd_imagenet  # multiple processes
"""

from absl import app, flags

from distill_jax import command_line

WORKDIR = flags.DEFINE_string("workdir", None, command_line.WORKDIR_HELP)
MODE = flags.DEFINE_enum("mode", "train", list(command_line.MODES), command_line.describe_modes())
flags.adopt_module_key_flags(command_line)


def main(argv: list[str]) -> None:
    command_line.make_streams_safe()
    with command_line.errors_in_one_line():
        command_line.import_jax()
        from distill_jax import export, predict, study, transfer  # here, so that --help does not wait for jax

        actions = {
            "train": lambda config, workdir: study.train(config, workdir, command_line.PROFILE.value),
            "eval": study.evaluate,
            "ensemble": lambda config, workdir: transfer.ensemble(config, workdir, command_line.MEMBERS.value),
            "features": transfer.features,
            "linear_probe": transfer.linear_probe,
            "predict": lambda config, workdir: predict.predict(config, workdir, command_line.INPUTS.value, command_line.OUTPUT.value),
            "export": lambda _, workdir: export.export(workdir, command_line.FORMAT.value, command_line.OUTPUT.value),
        }
        command_line.join_other_processes(MODE.value)
        config, workdir = command_line.read_config(argv[1:], MODE.value, WORKDIR.value, command_line.MEMBERS.value)
        actions[MODE.value](config, workdir)


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse)
