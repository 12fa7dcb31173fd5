"""The recipe gpt_shakespeare beside nanoGPT's recipe for a CPU: seconds of training, and validation loss.

    python tests/benchmarks/gpt_recipe.py --torch-python PATH [--seeds 3]

PyTorch trains a net of four blocks, four heads and width 128 as nanoGPT's `train_shakespeare_char` does with the
options that its README gives for a CPU: 2,000 steps of 12 x 64 letters drawn anywhere, AdamW with beta2 0.99 and a
decay of 0.1 on matrices, 100 steps of warm-up to 1e-3, a cosine to 1e-4, gradients clipped at 1, no dropout, in
float32. dlkit trains by its command line. Both read the same letters, nine tenths of Tiny Shakespeare; the loss is
over the whole last tenth in blocks of 64 that do not overlap. Seeds alternate, so that what else the machine does
meets both. The seconds are those of the training loop, without the import of a library and without evaluation;
dlkit's have the tracing of its graph in them. PyTorch is no dependency of dlkit: name an interpreter that has it.

With `--recipe NAME --model NAME` another language model of ours is set beside it.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK, ROWS, STEPS, WARM_UP, HIGH, LOW = 64, 12, 2000, 100, 1e-3, 1e-4


def rate(step: int) -> float:
    """nanoGPT's learning rate."""
    if step < WARM_UP:
        return HIGH * (step + 1) / (WARM_UP + 1)
    return LOW + 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP))) * (HIGH - LOW)


def train_torch(folder: Path, seed: int) -> dict[str, float]:
    """Trains and evaluates PyTorch's net on the ids that lie in the folder."""
    import torch
    from language_models import LAYERS, net_of_torch
    from torch import nn
    from torch.nn import functional

    torch.manual_seed(seed)
    net = net_of_torch()
    for name, weight in net.named_parameters():
        if weight.dim() == 2:
            deep = name.endswith(("output.weight", "back.weight"))  # the projections back into the residual stream
            nn.init.normal_(weight, 0, 0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)
    matrices = [weight for weight in net.parameters() if weight.dim() == 2]
    others = [weight for weight in net.parameters() if weight.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, HIGH, betas=(0.9, 0.99))
    ids = {split: torch.from_numpy(np.load(folder / f"{split}.npy")) for split in ("train", "validation")}
    began = time.perf_counter()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        places = torch.randint(len(ids["train"]) - BLOCK, (ROWS,))
        inputs, targets = (torch.stack([ids["train"][at + by : at + by + BLOCK] for at in places]) for by in (0, 1))
        loss = functional.cross_entropy(net(inputs).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    total, held = 0.0, ids["validation"]
    with torch.no_grad():
        for at in range(0, len(held) - 1, BLOCK):
            inputs, targets = held[at : at + BLOCK][None], held[at + 1 : at + BLOCK + 1]
            total += float(functional.cross_entropy(net(inputs[:, : len(targets)])[0], targets, reduction="sum"))
    return {"seconds": seconds, "loss": total / (len(held) - 1)}


def train_dlkit(folder: Path, seed: int, model: str, recipe: str) -> dict[str, float]:
    """Trains by the command line, with one evaluation in the end."""
    own = [sys.executable, "-m", "dlkit", "train", model, "--data", "shakespeare", "--recipe", recipe]
    own += [
        "--seed",
        str(seed),
        "--runs-dir",
        str(folder),
        "--name",
        f"run{seed}",
        "--set",
        "train.evaluate_every=1000",
    ]
    subprocess.run(own, check=True, capture_output=True)
    lines = (folder / f"run{seed}" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    held = [record["loss"] for record in records if record.get("split") == "validation"]
    return {"seconds": max(record["seconds"] for record in records if "lr" in record), "loss": held[-1]}


def main() -> None:
    """Trains both with each seed, and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch-python", required=True, help="an interpreter with PyTorch")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default="gpt")
    parser.add_argument("--recipe", default="gpt_shakespeare")
    parser.add_argument("--contend", nargs=2, metavar=("FOLDER", "SEED"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.contend:
        print(json.dumps(train_torch(Path(given.contend[0]), int(given.contend[1]))))
        return

    from dlkit.data.corpus import shakespeare

    corpus = shakespeare()
    found: dict[str, list[dict[str, float]]] = {"PyTorch": [], "dlkit": []}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for split, texts in corpus.texts.items():
            ids = np.array(corpus.tokenizer.encode(texts[0]), np.int64)
            np.save(folder / f"{split}.npy", ids)
        for seed in range(given.seeds):
            command = [given.torch_python, __file__, "--torch-python", "", "--contend", place, str(seed)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found["PyTorch"].append(json.loads(said.splitlines()[-1]))
            found["dlkit"].append(train_dlkit(folder, seed, given.model, given.recipe))
            for name, each in found.items():
                print(f"seed {seed}  {name:8} {each[-1]['seconds']:6.1f} s  loss {each[-1]['loss']:.4f}", flush=True)
    for name, each in found.items():
        seconds, loss = statistics.median(run["seconds"] for run in each), np.mean([run["loss"] for run in each])
        print(f"{name:8} median {seconds:.1f} s, mean loss {loss:.4f}")
    ratios = [own["seconds"] / other["seconds"] for own, other in zip(found["dlkit"], found["PyTorch"], strict=True)]
    print(f"dlkit takes {statistics.median(ratios):.2f} of PyTorch's time (median over the seeds)")


if __name__ == "__main__":
    main()
