"""Writes a trained network for other programs: --mode=export.

The formats, each in a folder of its own, by default <workdir>/export/<format>:
  safetensors: model.safetensors with the weights in float32, under the names and in the layout that other libraries expect:
    BERT, RoBERTa, DistilBERT: those of Hugging Face, with config.json and tokenizer_config.json; the library transformers loads the
      folder: AutoModelForSequenceClassification, AutoTokenizer, pipeline("text-classification", FOLDER). Its tokenizers take "[SEP]"
      in a sentence for a separator; ours take it for text.
    ImageNet ResNets: those of torchvision, whose load_state_dict takes them. Not for what torchvision does not have: version "v1" with
      bottlenecks, another width, GroupNorm, grey images.
    Other networks: ours, "params/..." and "batch_stats/...". The variables of the flax module are
      flax.traverse_util.unflatten_dict(safetensors.numpy.load_file(path), sep="/").
  stablehlo: model.stablehlo, a program with its weights for CPUs, CUDA and TPUs. jax.export.deserialize(bytearray(content)).call(batch)
    runs it, without this package, on batches of any length. It takes uint8 images, which it normalises itself, or tokens, and returns
    logits or, for detection, boxes.

Beside the model is network.json: what the network takes and returns, its classes, the versions, and the hash of its parameters. A network
for sentences also has tokenizer.json, which the library `tokenizers` reads. An export holds one network and nothing else: no teacher, no
table, no optimizer.
"""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from flax import traverse_util
from safetensors.numpy import save

from distill_jax import checkpoints, huggingface, logs, pretrained, specs, summary, tensor_names, trained, workdir
from distill_jax.data import affine, streaming, tokenization
from distill_jax.errors import UserError
from distill_jax.files import naming_unwritable
from distill_jax.results import main_result, validation_name
from distill_jax.specs import Spec

# of an export
FILES = {"model.safetensors", "model.stablehlo", "network.json", "config.json", "tokenizer.json", "tokenizer_config.json"}
PLATFORMS = ("cpu", "cuda", "tpu")
OF_RUN = ("method", "dataset", "metric", "num_params", "params_sha256", "weights_sha256")


class Written(NamedTuple):
    """What network.json says about a model's file."""

    names: str  # of the weights: huggingface, torchvision or distill_jax; "" if they are inside a program
    takes: str
    returns: str


def export(root: str | os.PathLike, form: str = "safetensors", output: str | os.PathLike | None = None) -> pathlib.Path:
    """Writes the network of a finished run, completely or not at all; an earlier export in the same folder is replaced.

    Args:
      root: workdir of the run; or hf:DIR or torchvision:FILE, which need `output`.
      form: a key of `WRITERS`; the module's docstring describes them.
      output: the folder to write; by default root/export/<form>.

    Returns:
      The folder.

    Raises:
      UserError: the run is unfinished or damaged; or the folder cannot be written, or holds other files.
    """
    root = pathlib.Path(root).expanduser()
    if not output and pretrained.is_source(str(root)):
        raise UserError(f"{root} is not a workdir; name the folder to write with --output")
    folder = pathlib.Path(output).expanduser() if output else root / "export" / form
    check_target(folder)
    network = trained.load(root)
    spec, count = network.spec, sum(leaf.size for leaf in jax.tree.leaves(network.variables["params"]))
    with completely(folder) as unfinished:
        written = WRITERS[form](network, unfinished)
        content = {"format": form} | written._asdict() | describe(network)
        workdir.write_json(unfinished / "network.json", content)
        if spec.tokenizer:
            (unfinished / "tokenizer.json").write_text(tokenization.of_length(spec.tokenizer, *spec.input_shape), encoding="utf-8")
    size = sum(path.stat().st_size for path in folder.iterdir())
    logs.say(f"{folder}: {form} of {spec.model['name']}, {count:,} parameters, {size / 1e6:.1f} MB")
    return folder


def write_safetensors(network: trained.Network, folder: pathlib.Path) -> Written:
    spec, names = network.spec, whose_names(network.spec)
    if names == "distill_jax":
        tensors = traverse_util.flatten_dict(jax.device_get(network.variables), sep="/")
    else:
        tensors = tensor_names.to_theirs(spec.model["name"], network.variables)
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"} if names == "huggingface" else None))
    if names == "huggingface":
        workdir.write_json(folder / "config.json", huggingface.config_of(spec))
        workdir.write_json(folder / "tokenizer_config.json", huggingface.tokenizer_config_of(spec))
    if spec.vocabulary_size:
        return Written(names, inputs(spec, "int32"), logits(spec))
    takes = f"{inputs(spec, 'float32', channels_first=names == 'torchvision')}, (pixels / 255 - input_mean) / input_std"
    return Written(names, takes, logits(spec))


def whose_names(spec: Spec) -> str:
    """Whose names and layout the weights get: those of the library that has this very network."""
    module, kind = spec.module(), tensor_names.format_of(spec.model["name"])
    if kind == "resnet":
        is_theirs = (module.width, module.norm != "group", spec.input_shape[-1]) == (64, True, 3)
        return "torchvision" if is_theirs and (module.version == "v1.5" or module.depth < 50) else "distill_jax"
    return "huggingface" if kind and module.pooling == "cls" else "distill_jax"


def write_stablehlo(network: trained.Network, folder: pathlib.Path) -> Written:
    spec, variables = network.spec, jax.device_get(network.variables)  # on the host, they become constants of the program
    kind, dtype = ("tokens", jnp.int32) if spec.vocabulary_size else ("image", jnp.uint8)

    def predict(batch):
        function = trained.boxes if spec.task == "detection" else trained.forward
        answers = function(network.module, variables, spec.to_inputs({kind: batch}))
        return tuple(answers) if spec.task == "detection" else answers  # jax.export knows no NamedTuple

    batch = jax.ShapeDtypeStruct((*jax.export.symbolic_shape("batch"), *spec.input_shape), dtype)
    program = jax.export.export(jax.jit(predict), platforms=PLATFORMS)(batch)
    (folder / "model.stablehlo").write_bytes(program.serialize())
    boxes = "three arrays: boxes, [batch, N, 4], left, top, right, bottom in pixels of the input; classes, [batch, N]; scores, [batch, N]"
    return Written("", inputs(spec, dtype.__name__), boxes if spec.task == "detection" else logits(spec))


WRITERS: dict[str, Callable[[trained.Network, pathlib.Path], Written]] = {
    "safetensors": write_safetensors,
    "stablehlo": write_stablehlo,
}


def inputs(spec: Spec, dtype: str, channels_first: bool = False) -> str:
    shape = ", ".join(map(str, (spec.input_shape[-1:] + spec.input_shape[:-1]) if channels_first else spec.input_shape))
    return f"{'tokens' if spec.vocabulary_size else 'images'}, {dtype} [batch, {shape}]"


def logits(spec: Spec) -> str:
    if spec.task == "detection":
        return "logits, box sides and centerness of each location, as in distill_jax/models/fcos.py"
    pixels = "".join(f"{side}, " for side in spec.input_shape[:2]) if spec.task == "segmentation" else ""
    return f"logits, float32 [batch, {pixels}{spec.num_classes}]"


def describe(network: trained.Network) -> dict[str, Any]:
    """The part of network.json that is the same in every format."""
    spec = network.spec
    if spec.vocabulary_size:
        prepare = "tokens are those of tokenizer.json, which also truncates and pads"
    elif spec.task != "classification":
        place = f"in the upper left corner; the rest has the colour {affine.GREY}"
        prepare = f"the whole image, its longer side resized to that of input_shape (bilinear), {place}"
    elif spec.image_size:
        prepare = f"the central square, its side {streaming.CENTRE} of the image's shorter side, resized to input_shape (bilinear)"
    else:
        prepare = "the whole image, resized to input_shape (bilinear)"
        if spec.downsample > 1:
            height, width = spec.full_size
            prepare += f"; one of {width}x{height} pixels is averaged over blocks of {spec.downsample}x{spec.downsample} instead"
    result = main_result(network.summary)
    of_run = {name: network.summary[name] for name in (*OF_RUN, result, validation_name(result)) if name in network.summary}
    if "params_sha256" not in of_run:  # a pre-trained network has no summary
        of_run["params_sha256"] = checkpoints.sha256(network.variables["params"])
    return {"prepare": prepare, **specs.facts(spec), **of_run, "versions": summary.provenance()["versions"]}


def check_target(folder: pathlib.Path) -> None:
    """Raises UserError if writing an export here would delete something else."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; choose another --output")
    if pathlib.Path.cwd().is_relative_to(folder.resolve()):
        raise UserError(f"{folder} is the current folder, or one above it, and an export replaces its folder; choose another --output")
    found = {path.name for path in folder.glob("*")}
    others = sorted(found - FILES if "network.json" in found else found)
    if others:
        raise UserError(f"{folder} holds something else, such as {others[0]}; choose another --output")


@contextlib.contextmanager
def completely(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder that replaces `folder` at the end; after an error, nothing has changed.

    Raises:
      UserError: it cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
    with naming_unwritable(str(folder), "choose another with --output"):
        unfinished.mkdir(parents=True)
        try:
            yield unfinished
            if folder.exists():
                shutil.rmtree(folder)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
