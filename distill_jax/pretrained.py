"""Pre-trained networks, read from local files: hf:DIR and torchvision:FILE. Nothing is downloaded, and nothing is unpickled.

  hf:DIR            a folder in Hugging Face's layout, with config.json, model.safetensors and tokenizer.json: BERT and MiniLM, RoBERTa,
                    DistilBERT, with or without a head for classification
  torchvision:FILE  the weights of an ImageNet ResNet as torchvision or timm names them, in safetensors; images are normalised with
                    ImageNet's statistics and cropped to their central squares or, for an export, prepared as its network.json says

A PyTorch user writes such a FILE with safetensors.torch.save_file(model.state_dict(), FILE). A network with a head needs no training:

    python run.py --workdir=hf:DIR --mode=predict --inputs=FILE
    python run.py --workdir=torchvision:FILE --mode=export --format=stablehlo --output=FOLDER
"""

import contextlib
import math
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from distill_jax import files, huggingface, tensor_names
from distill_jax.data import streaming, tokenization
from distill_jax.data.dataset import Dataset
from distill_jax.errors import UserError
from distill_jax.models import HEADS, bert, resnet_imagenet
from distill_jax.specs import Spec

HF, TORCHVISION = "hf:", "torchvision:"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
FLOATS = ("F64", "F32", "F16", "BF16")  # the dtypes of safetensors that are read
SAVE_TOKENIZER = "write it with transformers.AutoTokenizer.from_pretrained(DIR).save_pretrained(DIR)"
UNUSED = {  # tensors of a file that our networks do not have: heads for the pre-training, and buffers
    "bert": r"cls\.|bert\.embeddings\.(position|token_type)_ids$",
    "roberta": r"lm_head\.|roberta\.pooler\.|roberta\.embeddings\.(position|token_type)_ids$",
    "distilbert": r"vocab_(transform|layer_norm|projector)\.|distilbert\.embeddings\.position_ids$",
    "resnet": r".*num_batches_tracked$",
}


class Loaded(NamedTuple):
    """A network from a file."""

    network: dict[str, Any]  # {"params": ..., "batch_stats": ...}, numpy, without what is missing
    missing: tuple[str, ...]  # some of `models.HEADS`
    unused: tuple[str, ...]  # names of tensors


def is_source(name: str) -> bool:
    """Whether an entry of `initial` or `teachers` names such a network."""
    return name.startswith((HF, TORCHVISION))


def spec_of(source: str) -> Spec:
    """The spec of a network; with 0 classes if it has no head for classification.

    Raises:
      UserError: a file is missing, is not in safetensors, or holds another architecture.
    """
    return _spec_of_encoder(folder_of(source)) if source.startswith(HF) else _spec_of_resnet(weights_of(source))


def has_names(classes: Sequence[str]) -> bool:
    """Whether classes have names, not only numbers."""
    return not all(re.fullmatch(r"-?\d+", name) for name in classes)


def fitted(spec: Spec, dataset: Dataset) -> Spec:
    """The spec for a data set of its kind, images or sentences.

    These networks take rows and images of any size, and the names of classes count only if both have names.

    Raises:
      UserError: the rows are longer than the network's.
    """
    if spec.tokenizer and dataset.train["tokens"].shape[1] > spec.input_shape[0]:
        most = spec.input_shape[0]
        raise UserError(f"the encoder takes at most {most} tokens, and {dataset.name} has more in a row; set data.text.max_length={most}")
    shape = dataset.train["tokens"].shape[1:] if spec.tokenizer else (*dataset.train["image"].shape[1:3], spec.input_shape[2])
    words = dataset.tokenizer if tokenization.same_words(spec.tokenizer, dataset.tokenizer) else spec.tokenizer
    return spec._replace(input_shape=tuple(shape), tokenizer=words, classes=spec.classes if has_names(dataset.classes) else ())


def load(source: str, spec: Spec) -> Loaded:
    """The weights of a network.

    Args:
      source: hf:DIR or torchvision:FILE.
      spec: of the source.

    Raises:
      UserError: a tensor is missing, has another shape, or is not part of the architecture; the message names it.
    """
    path, model = weights_of(source), spec.model["name"]
    like = spec._replace(num_classes=spec.num_classes or 1).abstract_network()
    names, shapes = tensor_names.table(model, like), traverse_util.flatten_dict(like)
    with _opened(path, tensor_names.format_of(model)) as tensors:
        missing = {names[name].path[1] for name in names.keys() - tensors.keys()}
        for name in sorted(names.keys() - tensors.keys()):
            if names[name].path[1] not in HEADS:
                raise UserError(f"{path} has no tensor {name}, which a {model} has; use the weights of one")
        unused = sorted(tensors.keys() - names.keys())
        for name in unused:
            if not re.match(UNUSED[tensor_names.format_of(model)], name):
                raise UserError(f"{path} has a tensor {name}, which a {model} does not have; use the weights of one")
        kept = {name: tensor for name, tensor in names.items() if tensor.path[1] not in missing}
        for name, tensor in kept.items():
            if tensors[name].get_dtype() not in FLOATS:
                raise UserError(f"{path}: tensor {name} is {tensors[name].get_dtype()}; save the weights as {', '.join(FLOATS)}")
            theirs, ours = tuple(tensors[name].get_shape()), shapes[tensor.path].shape
            if len(theirs) != len(ours) or tuple(theirs[axis] for axis in tensor.axes) != ours:
                expected = [ours[axis] for axis in np.argsort(tensor.axes)]
                raise UserError(f"{path}: tensor {name} is {list(theirs)}; in a {model} of this size it is {expected}")
        network = tensor_names.to_ours({name: tensors[name][:] for name in kept}, kept)
    return Loaded(network, tuple(name for name in HEADS if name in missing), tuple(unused))


def complete(source: str, spec: Spec) -> dict[str, Any]:
    """The weights of a network that needs no training.

    Raises:
      UserError: as for `load`, or it has no head.
    """
    loaded = load(source, spec)
    if loaded.missing:
        raise UserError(f"{source} has no weights for {' and '.join(loaded.missing)}; fine-tune it first, as `initial`")
    return loaded.network


def sha256(source: str) -> str:
    """The hash of a network's file."""
    return files.sha256(weights_of(source))


# Files


def folder_of(source: str) -> pathlib.Path:
    return pathlib.Path(source.partition(":")[2]).expanduser()


def weights_of(source: str) -> pathlib.Path:
    """The file of a network's weights.

    Raises:
      UserError: there is none, or it is a pickle.
    """
    path = folder_of(source)
    if source.startswith(HF):
        if not path.is_dir():
            raise UserError(f"{source}: no such folder")
        path /= "model.safetensors"
        if not path.exists():
            if path.with_name(f"{path.name}.index.json").exists():
                raise UserError(f"{path.parent} holds its weights in several files; save them as one, {path.name}")
            path = min(path.parent.glob("pytorch_model*.bin"), default=path)
    if path.suffix in PICKLES:
        how = "safetensors.torch.save_file(model.state_dict(), FILE)"
        raise UserError(f"{path} is a pickle, which may run any code when it is read; convert it to safetensors: {how}")
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    return path


@contextlib.contextmanager
def _opened(path: pathlib.Path, kind: str) -> Iterator[dict[str, Any]]:
    """The tensors of a file by their full names, unread: each has `get_shape()` and `[:]`."""
    import safetensors  # here, since only these networks need it

    try:
        with safetensors.safe_open(path, framework="np") as file:
            tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            yield {_full_name(name, kind): tensor for name, tensor in tensors.items()}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} cannot be read as safetensors: {' '.join(str(error).split())}; save it again") from error


def _full_name(name: str, kind: str) -> str:
    """A tensor's current name in a model with a head: older files say gamma and beta, and files of bare encoders lack the prefix."""
    if kind == "resnet":
        return name
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name))
    return f"{kind}.{name}" if re.match(r"(embeddings|encoder|transformer|pooler)\.", name) else name


# Specs


def _spec_of_encoder(folder: pathlib.Path) -> Spec:
    weights, path = weights_of(f"{HF}{folder}"), folder / "config.json"
    config = files.read_json(path, "take the whole folder")
    model = huggingface.model_of(config, path)
    kind, positions = model["name"], model["positions"]
    words, ids = _read_tokenizer(folder, config, positions)
    if kind == "roberta":  # its positions begin after the id of its padding
        huggingface.check(config, path, "pad_token_id", ids["padding"])
        positions -= ids["padding"] + 1
    head = f"{tensor_names.ENCODERS[kind]['head']}.bias"
    with _opened(weights, kind) as tensors:
        outputs = math.prod(tensors[head].get_shape()) if head in tensors else 0
    num_classes = outputs if outputs > 1 else 0  # a single output is that of a regression
    spec = Spec(
        model=model | ids,
        num_classes=num_classes,
        input_shape=(positions,),
        classes=huggingface.classes_of(config, path, num_classes),
        vocabulary_size=config["vocab_size"],
        tokenizer=tokenization.adopted(words, positions),
    )
    return _as_exported(spec, weights, "huggingface")


def _read_tokenizer(folder: pathlib.Path, config: Mapping[str, Any], positions: int) -> tuple[str, dict[str, int]]:
    """The tokenizer, and the ids of `bert.IDS` in it."""
    try:
        words = tokenization.adopted((folder / "tokenizer.json").read_text(encoding="utf-8"), positions)
        largest, ids = tokenization.largest_id(words), tokenization.special_ids(words)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / 'tokenizer.json'} cannot be read: {error}; {SAVE_TOKENIZER}") from error
    except UserError as error:
        raise UserError(f"{folder / error.args[0]}") from error
    if not isinstance(config.get("vocab_size"), int) or largest >= config["vocab_size"]:
        raise UserError(f"{folder}: tokenizer.json has ids up to {largest}, but config.json's vocab_size is {config.get('vocab_size')}")
    return words, dict(zip(bert.IDS, ids, strict=True))


def _spec_of_resnet(path: pathlib.Path) -> Spec:
    with _opened(path, "resnet") as tensors:
        found = {re.match(r"layer(\d)\.(\d+)\.conv\d", name) for name in tensors} - {None}
        blocks = tuple(len({match[2] for match in found if match[1] == str(stage)}) for stage in range(1, 5))
        is_deep = "layer1.0.conv3.weight" in tensors
        num_classes = math.prod(tensors["fc.bias"].get_shape()) if "fc.bias" in tensors else 0
    depths = [depth for depth, known in resnet_imagenet.BLOCKS.items() if known == blocks and (depth >= 50) == is_deep]
    if not depths:
        known = ", ".join(map(str, resnet_imagenet.BLOCKS))
        raise UserError(f"{path} holds no ResNet of torchvision or timm, of depth {known}: its stages have {blocks} blocks")
    mean, std = (tuple(float(value) for value in values) for values in (streaming.MEAN, streaming.STD))
    spec = Spec({"name": f"resnet{depths[0]}"}, num_classes, (224, 224, 3), input_mean=mean, input_std=std, image_size=224)
    return _as_exported(spec, path, "torchvision")


def _as_exported(spec: Spec, weights: pathlib.Path, names: str) -> Spec:
    """The spec with what --mode=export, with these `names`, wrote beside the weights: how images or sentences are prepared, and classes."""
    path = weights.with_name("network.json")
    facts = files.read_json(path, "take the whole folder") if path.is_file() else {}
    if facts.get("names") != names:
        return spec
    try:
        if spec.tokenizer:
            words = tokenization.adopted(spec.tokenizer, min(facts["input_shape"][0], spec.input_shape[0]))
            return spec._replace(tokenizer=words, sentences=int(facts["sentences"]))
        if (facts["model"]["name"], facts["num_classes"]) != (spec.model["name"], spec.num_classes):
            raise UserError(f"{path} describes another network than {weights.name}; move that to a folder of its own")
        known = {name: tuple(facts[name]) for name in ("input_shape", "input_mean", "input_std", "classes")}
        return spec._replace(**known, image_size=int(facts["image_size"]), downsample=int(facts.get("downsample", 1)))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged (missing or invalid: {error}); export the network again") from error
