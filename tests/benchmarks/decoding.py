"""How fast Transformers decode here: dlkit, CTranslate2 and Hugging Face's `generate`, side by side.

    python tests/benchmarks/decoding.py --torch-python PATH [--work "base, 32 sentences"] [--rounds 5]

Beam search with 5 beams, 30 tokens forced, random weights, sentences of 20 tokens, two threads for everybody. Each
contender is a process of its own that holds its model and waits; in each round all of them translate the same number of
batches, one after another, so that what else the machine does meets all alike. Printed are output tokens of the best
hypotheses per second, the medians over the rounds, and as ratios the median over the rounds of the quotients.

The peers are no dependencies of dlkit: name an interpreter that has torch, transformers and ctranslate2.
"""

import argparse
import functools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import racing

BEAMS, TOKENS, SOURCE, THREADS = 5, 30, 20, 2


@dataclass(frozen=True)
class Net:
    """A Transformer with as many blocks on either side and one vocabulary."""

    layers: int
    width: int
    ffn: int
    heads: int
    vocabulary: int


NETS = {"base": Net(6, 512, 2048, 8, 32_000), "tiny": Net(4, 128, 256, 4, 10_000)}
# Net, sentences, and how often a batch is translated in a round.
WORKS = {
    "base, 32 sentences": ("base", 32, 1),
    "base, 1 sentence": ("base", 1, 3),
    "tiny, 32 sentences": ("tiny", 32, 5),
    "tiny, 1 sentence": ("tiny", 1, 30),
}
CONTENDERS = {
    "dlkit": ("dlkit", "float32"),
    "dlkit compiled": ("dlkit compiled", "float32"),
    "dlkit bfloat16": ("dlkit", "bfloat16"),
    "ctranslate2 float32": ("ctranslate2", "float32"),
    "ctranslate2 int8": ("ctranslate2", "int8"),
    "hf float32": ("hf", "float32"),
}
# What is set against what, and the ratio that is to be reached.
GOALS = {
    "base, 32 sentences": {"ctranslate2 int8": 1.0, "ctranslate2 float32": 1.4, "hf float32": 3.0},
    "base, 1 sentence": {"ctranslate2 float32": 1.4, "hf float32": 3.0},
    "tiny, 32 sentences": {"ctranslate2 float32": 1.0, "hf float32": 3.0},
    "tiny, 1 sentence": {"ctranslate2 float32": 1.0, "hf float32": 3.0},
}


# ------------------------------------------------------------------------------------------------------- contenders


def of_dlkit(net: Net, precision: str, source: np.ndarray, *, compiled: bool = False) -> Callable[[], None]:
    """dlkit's decoder, as `dlkit translate` has it: of several sentences each thread translates a part.

    In bfloat16 the weights are, too, so that nothing is cast at each step.
    """
    from dlkit import runtime

    runtime.import_tensorflow()
    import keras
    import tensorflow as tf

    workers = THREADS if len(source) > 1 else 1
    tf.config.threading.set_intra_op_parallelism_threads(THREADS // workers)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    from dlkit.decode.decoder import Decoder
    from dlkit.models.transformer import transformer

    keras.config.set_dtype_policy(precision)
    model = transformer(
        net.vocabulary, net.vocabulary, layers=net.layers, width=net.width, ffn=net.ffn, heads=net.heads, tied="all"
    )
    decoder = Decoder(model, compile_after=0 if compiled else None, workers=workers)

    def translate() -> None:
        decoded = decoder.beam(source, max_len=TOKENS, min_len=TOKENS, beams=BEAMS)
        assert (decoded.lengths == TOKENS).all()

    return translate


def of_ctranslate2(net: Net, precision: str, source: np.ndarray) -> Callable[[], None]:
    """CTranslate2, with a model whose weights are drawn here."""
    import ctranslate2

    random = np.random.default_rng(0)
    spec = ctranslate2.specs.TransformerSpec.from_config((net.layers, net.layers), net.heads, pre_norm=False)

    def dense(part: object, inputs: int, units: int, *, bias: bool = True) -> None:
        part.weight = random.normal(0, inputs**-0.5, (units, inputs)).astype(np.float32)
        if bias:
            part.bias = np.zeros(units, np.float32)

    def norm(part: object) -> None:
        part.gamma, part.beta = np.ones(net.width, np.float32), np.zeros(net.width, np.float32)

    words = random.normal(0, net.width**-0.5, (net.vocabulary, net.width)).astype(np.float32)
    positions = random.normal(0, 1, (512, net.width)).astype(np.float32)
    spec.encoder.embeddings[0].weight = spec.decoder.embeddings.weight = words
    spec.decoder.projection.weight = words
    for side in (spec.encoder, spec.decoder):
        side.position_encodings.encodings = positions
        for layer in side.layer:
            dense(layer.self_attention.linear[0], net.width, 3 * net.width)
            dense(layer.self_attention.linear[1], net.width, net.width)
            dense(layer.ffn.linear_0, net.width, net.ffn)
            dense(layer.ffn.linear_1, net.ffn, net.width)
            norm(layer.self_attention.layer_norm)
            norm(layer.ffn.layer_norm)
            if side is spec.decoder:
                dense(layer.attention.linear[0], net.width, net.width)
                dense(layer.attention.linear[1], net.width, 2 * net.width)
                dense(layer.attention.linear[2], net.width, net.width)
                norm(layer.attention.layer_norm)
    vocabulary = ["<blank>", "<s>", "</s>", "<unk>", *(f"w{number}" for number in range(4, net.vocabulary))]
    spec.register_source_vocabulary(vocabulary)
    spec.register_target_vocabulary(vocabulary)
    spec.validate()
    with tempfile.TemporaryDirectory() as folder:
        spec.save(folder)
        translator = ctranslate2.Translator(folder, compute_type=precision, inter_threads=1, intra_threads=THREADS)
    words_ = [[vocabulary[token] for token in row] for row in source]

    def translate() -> None:
        found = translator.translate_batch(
            words_, beam_size=BEAMS, min_decoding_length=TOKENS, max_decoding_length=TOKENS
        )
        assert len(found) == len(source) and all(len(one.hypotheses[0]) >= TOKENS - 1 for one in found)

    return translate


def of_hf(net: Net, _: str, source: np.ndarray) -> Callable[[], None]:
    """`generate` of Hugging Face's transformers, with MarianMT's model."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(THREADS)
    sizes = {f"{side}_{part}": value for side in ("encoder", "decoder") for part, value in (
        ("layers", net.layers), ("attention_heads", net.heads), ("ffn_dim", net.ffn))}  # fmt: skip
    config = MarianConfig(
        vocab_size=net.vocabulary, d_model=net.width, activation_function="relu", pad_token_id=0, eos_token_id=2,
        bos_token_id=1, decoder_start_token_id=1, forced_eos_token_id=None, **sizes,
    )  # fmt: skip
    model = MarianMTModel(config).eval()
    ids = torch.tensor(source, dtype=torch.long)

    def translate() -> None:
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), num_beams=BEAMS, min_new_tokens=TOKENS,
                max_new_tokens=TOKENS, do_sample=False,
            )  # fmt: skip
        assert found.shape == (len(source), TOKENS + 1)

    return translate


# -------------------------------------------------------------------------------------------------- rounds and figures


def serve(work: str, name: str) -> None:
    """A contender: for each number on stdin it translates so often and prints the seconds that took."""
    out = racing.answers()
    library, precision = CONTENDERS[name]
    net, sentences, _ = WORKS[work]
    source = np.random.default_rng(0).integers(4, NETS[net].vocabulary, (sentences, SOURCE)).astype(np.int32)
    source[:, -1] = 2
    make = {
        "dlkit": of_dlkit, "dlkit compiled": functools.partial(of_dlkit, compiled=True),
        "ctranslate2": of_ctranslate2, "hf": of_hf,
    }[library]  # fmt: skip
    translate = make(NETS[net], precision, source)
    for _ in range(2):
        translate()

    def seconds(often: int) -> float:
        began = time.perf_counter()
        for _ in range(often):
            translate()
        return time.perf_counter() - began

    racing.serve(out, seconds)


def start(work: str, names: list[str], torch_python: str | None) -> dict[str, subprocess.Popen[str]]:
    """The contenders, each ready to translate."""
    processes = {}
    for name in names:
        python = sys.executable if name.startswith("dlkit") else torch_python
        command = [str(python), str(Path(__file__).resolve()), "--work", work, "--serve", name]
        processes[name] = racing.start(command, {"OMP_NUM_THREADS": str(THREADS)})
        racing.await_ready(name, processes[name])
    return processes


def race(work: str, processes: dict[str, subprocess.Popen[str]], rounds: int) -> dict[str, list[float]]:
    """Output tokens per second of each contender in each round."""
    _, sentences, often = WORKS[work]
    speeds: dict[str, list[float]] = {name: [] for name in processes}
    for number in range(rounds):
        for name in racing.in_turn(processes, number):
            time.sleep(0.5)  # until the threads of the one before no longer wait by spinning
            speeds[name].append(sentences * TOKENS * often / racing.ask(processes[name], often))
    return speeds


def main() -> None:
    """Races the contenders at each work and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", choices=WORKS, action="append")
    parser.add_argument("--torch-python", help="an interpreter that has torch, transformers and ctranslate2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="race the contenders whose names contain this, such as float32")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.work[0], given.serve)
        return
    names = [name for name in CONTENDERS if name.startswith("dlkit") or given.torch_python]
    names = [name for name in names if given.only is None or given.only in name]
    for work in given.work or WORKS:
        processes = start(work, names, given.torch_python)
        speeds = race(work, processes, given.rounds)
        for process in processes.values():
            process.terminate()
        if given.json:
            print(json.dumps({"work": work, "tokens_per_second": speeds}))
            continue
        print(f"{work}, beam {BEAMS}: output tokens/s, median of {given.rounds} rounds (min to max)")
        ours = [name for name in names if name.startswith("dlkit")]
        racing.report(speeds, [(own, *goal) for own in ours for goal in GOALS[work].items()], width=22)


if __name__ == "__main__":
    main()
