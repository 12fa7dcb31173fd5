"""A Transformer as a model of CTranslate2, which serves it without dlkit and TensorFlow.

The folder holds the weights, the vocabularies, the tokenizers, where it all comes from, and `translate.py`, a short
program that uses it. CTranslate2 keeps kernels as (outputs, inputs); else its weights are ours under other names:

    encoder/embeddings_0, decoder/embeddings    the embeddings, which it multiplies by sqrt(width), too
    */position_encodings                        a row for each position, whatever their kind; zeros for none
    */layer_*/self_attention/linear_0           queries, keys and values side by side, as in our one matrix
    */layer_*/attention/linear_0, linear_1      cross attention: the queries; keys and values
    */layer_*/*attention/linear_1 or linear_2   the last one: the output of the attention
    */layer_*/ffn/linear_0, linear_1            the position-wise network
    */layer_*/*/layer_norm                      the sublayer's, after its sum (post) or before it (pre)
    */layer_norm                                the two norms at the ends of `pre`
    decoder/projection                          the read-out; stored once when it is an embedding
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dlkit import runs
from dlkit.data.tokenizer import CONTROL, END, SPECIAL, START, UNKNOWN, SubwordTokenizer, Tokenizer
from dlkit.errors import UsageError
from dlkit.export import place

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf
    from ctranslate2.specs import TransformerSpec
    from numpy.typing import NDArray

    from dlkit.layers.attention import MultiHeadAttention
    from dlkit.layers.positions import Positions
    from dlkit.models.transformer import AddNorm, FeedForward, Transformer
    from dlkit.recipe import DecodeSection
    from dlkit.runs import Run

Quantization = Literal["float32", "float16", "bfloat16", "int16", "int8"]

ACTIVATIONS = {"relu": "RELU", "gelu": "GELU"}  # those that CTranslate2 has of ours, and its names
POSITIONS = 1024  # rows of a table of sinusoids; so many source tokens CTranslate2 reads unless it is told otherwise


def write(text: str, folder: Path | None = None, *, quantization: Quantization = "float32") -> Path:
    """Writes the Transformer of a run as a folder that `ctranslate2.Translator` opens; it appears whole or not at all.

    Args:
        text: a run or a checkpoint, as for `dlkit.runs.load_model`.
        folder: what the folder is to be called; by default `export/ctranslate2` in the run, or a name in the current
            folder when the run is only to be read. An earlier export is replaced.
        quantization: how the matrices are stored. Of the integers each row, or with `int16` each matrix, has its scale.

    Returns:
        The folder.

    Raises:
        dlkit.errors.UsageError: CTranslate2 is not installed, the run is no Transformer, or something else than an
            export has the name.
        dlkit.errors.DlkitError: no such run or checkpoint, or a damaged one; or the folder cannot be written.

    Example:
        >>> folder = write("runs/transformer_tatoeba-1", quantization="int8")
        >>> ctranslate2.Translator(str(folder)).translate_batch([["▁Bon", "jour", "."]])
    """
    run = runs.open_run(text)
    checkpoint = runs.find_checkpoint(run, runs.split_operand(text)[1])
    folder = folder or place.default(run, "ctranslate2")
    _check(run, folder)

    from dlkit import runtime
    from dlkit.recipe import resolve_decode

    decode = resolve_decode(run.recipe["decode"], path=run.path / "recipe.toml")
    runtime.import_tensorflow()
    from dlkit.tasks.translator import load

    translator = load(text)
    (model,), (source,), target = translator.decoder.models, translator.sources, translator.target
    spec = specification(model, source, target, quantization=quantization)
    search = options(decode, max_len=translator.max_len, max_input=translator.most_tokens)
    with place.filled(folder, run, checkpoint, quantization=quantization) as new:
        spec.save(str(new))
        names = _save_tokenizers(new, source, target)
        (new / "translate.py").write_text(usage(source, *names, search=search), encoding="utf-8")
    return folder


def _check(run: "Run", folder: Path) -> None:
    """All that can be known before TensorFlow takes its time."""
    name = run.recipe["model"]["name"]
    if name != "transformer":
        raise UsageError(
            f"{run.path} is a {name}, and CTranslate2 runs Transformers only", "`dlkit train transformer` trains one"
        )
    if (activation := run.recipe["model"].get("activation", "relu")) not in ACTIVATIONS:
        raise UsageError(
            f"{run.path} has the activation {activation}, and CTranslate2 knows {' and '.join(ACTIVATIONS)}",
            "`--to bundle` writes any run",
        )
    if find_spec("ctranslate2") is None:
        raise UsageError("CTranslate2 is not installed", "`pip install 'dlkit-tf[export]'`")
    place.check(folder)


# -------------------------------------------------------------------------------------------------------- the weights


def specification(
    model: "Transformer", source: Tokenizer, target: Tokenizer, *, quantization: Quantization = "float32"
) -> "TransformerSpec":
    """A Transformer with the vocabularies of its tokenizers, as CTranslate2 describes one; its `save` writes it.

    Example:
        >>> specification(model, tokenizer, tokenizer).save("folder")
    """
    from ctranslate2.specs import TransformerSpec
    from ctranslate2.specs.common_spec import Activation

    from dlkit.layers.norms import EPSILON

    settings = model.settings
    spec = TransformerSpec.from_config(
        (settings.layers, settings.decoder_layers),
        settings.heads,
        pre_norm=settings.norm == "pre",
        activation=Activation[ACTIVATIONS[settings.activation]],
        alignment_heads=settings.heads,  # the attention that it returns is the mean of all heads, as ours
    )
    _fill(spec, model)
    names = vocabulary(target)
    spec.register_source_vocabulary(vocabulary(source))
    spec.register_target_vocabulary(names)
    config = spec.config
    config.bos_token, config.eos_token, config.unk_token = names[START], names[END], names[UNKNOWN]
    config.decoder_start_token = names[START]
    config.add_source_eos = True
    config.layer_norm_epsilon = EPSILON
    spec.validate()
    if quantization == "bfloat16":
        _to_bfloat16(spec)
    spec.optimize(quantization=quantization)
    return spec


def _fill(spec: "TransformerSpec", model: "Transformer") -> None:
    spec.encoder.embeddings[0].weight = _array(model.source_embedding.embeddings)
    spec.decoder.embeddings.weight = _array(model.target_embedding.embeddings)
    spec.decoder.projection.weight = _array(model.words)
    for side, positions, norm in (
        (spec.encoder, model.source_positions, model.encoder_norm),
        (spec.decoder, model.target_positions, model.decoder_norm),
    ):
        side.position_encodings.encodings = _table(positions, model.settings.width)
        if norm is not None:
            _norm(side.layer_norm, norm)
    for layer, encoder_block in zip(spec.encoder.layer, model.encoder, strict=True):
        _attention(layer.self_attention, encoder_block.self_attention, encoder_block.add_norm1)
        _feed_forward(layer.ffn, encoder_block.feed_forward, encoder_block.add_norm2)
    for layer, decoder_block in zip(spec.decoder.layer, model.decoder, strict=True):
        _attention(layer.self_attention, decoder_block.self_attention, decoder_block.add_norm1)
        _attention(layer.attention, decoder_block.cross_attention, decoder_block.add_norm2)
        _feed_forward(layer.ffn, decoder_block.feed_forward, decoder_block.add_norm3)


def _attention(spec: Any, attention: "MultiHeadAttention", add_norm: "AddNorm") -> None:
    for linear, (kernel, bias) in zip(spec.linear, attention.projections.values(), strict=True):
        _linear(linear, kernel, bias)
    _norm(spec.layer_norm, add_norm.norm)


def _feed_forward(spec: Any, network: "FeedForward", add_norm: "AddNorm") -> None:
    _linear(spec.linear_0, network.hidden.kernel, network.hidden.bias)
    _linear(spec.linear_1, network.output.kernel, network.output.bias)
    _norm(spec.layer_norm, add_norm.norm)


def _linear(spec: Any, kernel: "keras.Variable", bias: "keras.Variable | None") -> None:
    spec.weight = _array(kernel).T
    if bias is not None:
        spec.bias = _array(bias)


def _norm(spec: Any, norm: "keras.layers.LayerNormalization") -> None:
    spec.gamma, spec.beta = _array(norm.gamma), _array(norm.beta)


def _table(positions: "Positions", width: int) -> "NDArray[np.float32]":
    """What is added at each position, (positions, width)."""
    import tensorflow as tf

    rows = positions.max_length or POSITIONS
    return _array(tf.broadcast_to(positions.at(tf.range(rows), width), (rows, width)))


def _array(values: "keras.Variable | tf.Tensor") -> "NDArray[np.float32]":
    return values.numpy().astype("float32")


def _to_bfloat16(spec: "TransformerSpec") -> None:
    """What `optimize` would need PyTorch for."""
    import tensorflow as tf

    for variable in spec.variables().values():
        if variable.dtype == "float32":
            variable.array = variable.array.astype(tf.bfloat16.as_numpy_dtype)


# --------------------------------------------------------------------------------------------------- text and tokens


def vocabulary(tokenizer: Tokenizer) -> list[str]:
    """What each id is called in the export; no two have the same name.

    CTranslate2 is given tokens by their names. Those of padding, start and end begin with a control character, so that
    what reads like a special token in a text, such as `</s>`, is plain text there, too.
    """
    if isinstance(tokenizer, SubwordTokenizer):
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
        return [processor.id_to_piece(i) for i in range(tokenizer.size)]
    special = ["\x01pad", "\x01start", "\x01end", SPECIAL[UNKNOWN]]
    return special + tokenizer.pieces(range(len(special), tokenizer.size))


def _save_tokenizers(folder: Path, source: Tokenizer, target: Tokenizer) -> tuple[str, str]:
    """Writes the tokenizers, those of SentencePiece also as its own files, and returns their names without suffix."""
    names = ("tokenizer", "tokenizer") if source == target else ("source_tokenizer", "target_tokenizer")
    for name, tokenizer in zip(names, (source, target), strict=True):
        tokenizer.save(folder / f"{name}.json")
        if isinstance(tokenizer, SubwordTokenizer):
            (folder / f"{name}.model").write_bytes(tokenizer.model)
    return names


def options(decode: "DecodeSection", *, max_len: int, max_input: int) -> dict[str, Any]:
    """How a run searches, as arguments of CTranslate2's `translate_batch`.

    It divides by a power of the length: 1 and 0 are the normalizations `avg` and `none`, and `alpha` comes near to
    `gnmt`. Longer lines than `max_input` it cuts.
    """
    return {
        "beam_size": decode.beams,
        "length_penalty": {"avg": 1.0, "gnmt": decode.alpha, "none": 0.0}[decode.length_norm],
        "min_decoding_length": 0,  # by default it gives no empty translation
        "max_decoding_length": max_len,
        "max_input_length": max_input,
    }


def usage(tokenizer: Tokenizer, source: str, target: str, *, search: Mapping[str, Any]) -> str:
    """A program that translates line by line, as `dlkit translate` does, with nothing but the folder it lies in.

    Args:
        tokenizer: of the source; that of the target is of the same kind.
        source: name of its file, without suffix.
        target: name of the target's file.
        search: arguments of `translate_batch`, see `options`.
    """
    text = "text.lower()" if tokenizer.lower else "text"
    cleaned = f'control.sub(" ", {text})'
    packages = ["ctranslate2"]
    opened: list[str] = []
    match tokenizer.kind:
        case "word":
            encoded, decoded = f"{cleaned}.split()", '" ".join(result.hypotheses[0])'
        case "char":
            encoded, decoded = f"list({text})", '"".join(result.hypotheses[0])'
        case "unigram" | "bpe":
            packages.append("sentencepiece")
            opened = [
                f'{side} = sentencepiece.SentencePieceProcessor(model_file=str(folder / "{name}.model"))'
                for side, name in (("source", source), ("target", target))
            ]
            encoded, decoded = f"source.encode({cleaned}, out_type=str)", "target.decode(result.hypotheses[0])"
    cleans = "control" in encoded
    return "\n".join(
        [
            f"# Needs `pip install {' '.join(packages)}` and this folder. To translate: python translate.py < lines",
            *["import re"] * cleans,
            "import sys",
            "from pathlib import Path",
            "",
            *(f"import {package}" for package in packages),
            "",
            "folder = Path(__file__).parent",
            "translator = ctranslate2.Translator(str(folder))",
            *opened,
            f"search = {json.dumps(search)}",
            *[f'control = re.compile(r"{CONTROL.pattern}")'] * cleans,
            "",
            'sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace", newline="\\n")',
            'sys.stdout.reconfigure(encoding="utf-8")',
            "for line in sys.stdin:",
            '    text = line.removesuffix("\\n").removesuffix("\\r")',
            f"    tokens = {encoded}",
            "    (result,) = translator.translate_batch([tokens], **search)",
            f"    print({decoded}, flush=True)",
            "",
        ]
    )
