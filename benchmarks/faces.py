r"""How much face verification does pruning cost? A trained MobileFaceNet, pruned and exported; and one from scratch.

    python benchmarks/faces.py --model=mobilefacenet_112x96.keras --faces=lfw112x96 --pairs=lfw_pairs.txt

All through the programs: `prune` with ArcFace as auxiliary and final loss on people of LFW's folds 1-8, rates 25 and
50 % of the stem, of all expansions and of the last convolution (the residual streams stay), `export` to float32 and
int8, `train` of a small network from random weights. Everything is verified on the pairs of folds 9 and
10, which show other people (checked). Accuracies are those of the files where a file is named. Other methods, in
the same run and fine-tuned alike: `--methods=dcp,random,l1,dcp:losses=reconstruction`.

    python benchmarks/faces.py --model=... --faces=... --pairs=... --people=20 --finetune_epochs=1 \
        --selection_samples=64 --scratch_min_images=2 --scratch_epochs=1

is a smoke test of some minutes, whose figures mean nothing.
"""

import itertools
import json
import pathlib
import sys
import time

import numpy as np

from dcp_tf.tools.cli.program import Program

PROGRAM = Program("faces", __doc__)
PROGRAM.section("Model and data")
PROGRAM.path("model", None, "The trained embedding network, a .keras file.")
PROGRAM.string("normalization", "face", "What it was trained on.")
PROGRAM.string("faces", None, "The folder of LFW's people, aligned to the size that the network takes.")
PROGRAM.path("pairs", None, "LFW's pairs.txt.")
PROGRAM.list("train_folds", [str(fold) for fold in range(1, 9)], "Folds whose people are trained on.")
PROGRAM.list("test_folds", ["9", "10"], "Folds whose pairs are verified.")
PROGRAM.section("Pruning")
PROGRAM.integer("people", 2000, "At most so many people are trained on, drawn at random.", lower=2)
PROGRAM.integer("min_images", 2, "People with fewer images are left out.", lower=2)
PROGRAM.list("rates", ["0.25", "0.5"], "Shares of the channels to remove; empty: nothing is pruned.")
PROGRAM.list("methods", ["dcp"], "How they are chosen, NAME or NAME:flag=value:flag=value as prune takes them.")
PROGRAM.integer("aux_epochs", 1, "Epochs of the auxiliary losses.")
PROGRAM.enum("auxiliary_trains", "heads", ("all", "heads"), "What those epochs train.")
PROGRAM.integer("finetune_epochs", 2, "Epochs of the pruned network.")
PROGRAM.float("finetune_lr", 0.1, "Their learning rate.")
PROGRAM.float("distillation", 1.0, "Share of the original's predictions in their loss.")
PROGRAM.integer("batch_size", 64, "Images per training step.", lower=1)
PROGRAM.integer("selection_samples", 4096, "Images that the selection looks at.", lower=1)
PROGRAM.list("quantization", ["float32", "int8"], "Files to make.")
PROGRAM.section("From scratch")
PROGRAM.string("scratch_model", "zoo:spherenet4", "A network for faces to train from random weights; empty: none.")
PROGRAM.enum("scratch_loss", "arcface", ("arcface", "cosface", "asoftmax"), "What it is trained with.")
PROGRAM.integer("scratch_epochs", 6, "Epochs of that.", lower=1)
PROGRAM.float("scratch_lr", 0.05, "Their learning rate.")
PROGRAM.integer("scratch_min_images", 8, "It learns from all people with so many images.", lower=2)
PROGRAM.section("The run")
PROGRAM.path("output_dir", "faces_benchmark", "Where models, files and faces.json go.")
PROGRAM.integer("seed", 0, "Of everything that is drawn.")


def main(flags) -> None:
    """Prints a table of all networks and files."""
    from dcp_tf.errors import UsageError
    from dcp_tf.files import writable_folder, write_json

    rates = [rate for rate in flags.rates if rate]
    if not (flags.faces and flags.pairs and (flags.model or not rates)):
        raise UsageError("give --model=FILE, --faces=DIR and --pairs=FILE")
    folder = writable_folder(flags.output_dir)
    keep = choose_people(flags, folder / "people.txt", flags.min_images, flags.people)
    started, results = time.perf_counter(), {}
    print(
        f"{'network':31} {'file':8} {'verified':>9} {'TAR@1%':>7} {'AUC':>6} {'cosine':>7} {'MACs':>12} {'bytes':>11} "
        f"{'s':>5}"
    )
    for rate, method in itertools.product(rates, flags.methods):
        out = folder / rate / method.replace(":", "_").replace("=", "_")
        run = prune(flags, keep, rate, method, out)
        if "original" not in results:
            results["original"] = run["baseline"]
            show("original", flags.model, run["baseline"], flags, folder)
        name = f"{float(rate):.0%} {method}"
        results[name] = run["pruned"]
        show(name, out / "pruned.keras", run["pruned"], flags, out, run["seconds"])
    if flags.scratch_model:
        keep = choose_people(flags, folder / "scratch.txt", flags.scratch_min_images)
        for name, record in from_scratch(flags, keep, folder).items():
            results[name] = record
            line(name, "Keras", record, seconds=record.get("seconds"))
    print(f"{time.perf_counter() - started:.0f} s")
    write_json(folder / "faces.json", results)


def choose_people(flags, path: pathlib.Path, min_images: int, most: int | None = None) -> str:
    """Writes the names of those who are trained on; none of them is in the test folds.

    Args:
        flags: of the program.
        path: of the file with the names.
        min_images: people with fewer are left out.
        most: at most so many are drawn from the others; None: all.

    Raises:
        UsageError: the folds share people.
    """
    from dcp_tf import data
    from dcp_tf.errors import UsageError

    pairs = data.read_pairs(flags.pairs, flags.faces)
    people, strangers = (pairs.people(map(int, folds)) for folds in (flags.train_folds, flags.test_folds))
    if both := sorted(people & strangers):
        raise UsageError(f"{len(both)} people are in train and test folds, such as {both[0]}: nothing is measured then")
    counts = {name: len(list((pathlib.Path(flags.faces) / name).iterdir())) for name in sorted(people)}
    chosen = [name for name in counts if counts[name] >= min_images]
    chosen = sorted(np.random.default_rng(flags.seed).permutation(chosen)[:most].tolist())
    images = sum(counts[name] for name in chosen)
    print(
        f"{len(chosen)} people, {images} images of folds {','.join(flags.train_folds)}; verified on "
        f"{pairs.take_folds(map(int, flags.test_folds)).size} pairs of {len(strangers)} other people",
        flush=True,
    )
    path.write_text("\n".join(chosen) + "\n", encoding="utf-8")
    return str(path)


def data_flags(flags, keep: str, normalization: bool = True) -> list[str]:
    """The flags for faces and pairs that the training programs get."""
    return [
        f"--dataset=faces:{flags.faces}",
        f"--keep_identities={keep}",
        f"--pairs={flags.pairs}",
        f"--pairs_root={flags.faces}",
        f"--pairs_folds={','.join(flags.test_folds)}",
        f"--seed={flags.seed}",
        *([f"--normalization={flags.normalization}"] if normalization else []),
    ]


def prune(flags, keep: str, rate: str, method: str, out: pathlib.Path) -> dict:
    """One run of `prune`: its summary, with the seconds that it took."""
    from dcp_tf.tools import prune as program

    started = time.perf_counter()
    name, *options = method.split(":")
    call(
        program,
        f"--model={flags.model}",
        *data_flags(flags, keep),
        *(f"--{name}={flags[name].value}" for name in ("auxiliary_trains", "finetune_lr", "distillation")),
        *(f"--{name}={flags[name].value}" for name in ("aux_epochs", "finetune_epochs", "batch_size", "min_images")),
        *(f"--method={name}", *(f"--{option}" for option in options)),
        *(f"--rate={rate}", "--round_to=1", "--quantization=", f"--selection_samples={flags.selection_samples}"),
        f"--output_dir={out}",
    )
    summary = json.loads((out / "summary.json").read_text())
    return summary | {"seconds": time.perf_counter() - started}


def show(name: str, model, measured: dict, flags, folder: pathlib.Path, seconds: float | None = None) -> None:
    """Prints a Keras model and its files, which `export` makes."""
    from dcp_tf.tools import export

    line(name, "Keras", measured, seconds=seconds)
    if not [mode for mode in flags.quantization if mode]:
        return
    keep, out = str(pathlib.Path(flags.output_dir) / "people.txt"), folder / "files"
    modes = f"--quantization={','.join(flags.quantization)}"
    call(export, f"--model={model}", *data_flags(flags, keep), modes, f"--output_dir={out}")
    files = json.loads((out / "export.json").read_text())["files"]
    measured["files"] = files
    for record in files.values():
        line("", record["quantization"], record)


def from_scratch(flags, keep: str, folder: pathlib.Path) -> dict[str, dict]:
    """A network before and after `train`."""
    from dcp_tf.tools import train

    out, started = folder / "scratch", time.perf_counter()
    call(
        train,
        f"--model={flags.scratch_model}",
        *data_flags(flags, keep, normalization=False),
        *(f"--loss={flags.scratch_loss}", f"--epochs={flags.scratch_epochs}"),
        *(f"--min_images={flags.scratch_min_images}", f"--batch_size={flags.batch_size}"),
        *(f"--learning_rate={flags.scratch_lr}", f"--output_dir={out}"),
    )
    summary = json.loads((out / "summary.json").read_text())
    name = flags.scratch_model.removeprefix("zoo:")
    untrained = verify_untrained(flags, name)
    trained = summary["baseline"] | {"seconds": time.perf_counter() - started}
    return {f"{name}, random": summary["baseline"] | untrained, f"{name}, trained": trained}


def verify_untrained(flags, name: str) -> dict:
    """The figures of the network's random weights, on the same pairs."""
    import keras

    from dcp_tf import data, models
    from dcp_tf.evaluation import verify
    from dcp_tf.training.verified import figures

    pairs = data.read_pairs(flags.pairs, flags.faces).take_folds(map(int, flags.test_folds))
    images = data.pairs_split(pairs)
    keras.utils.set_random_seed(flags.seed)
    model = models.build(name, input_shape=images.shape)
    return figures(verify(model, images.batches(256), pairs))


def line(name: str, kind: str, record: dict, seconds: float | None = None) -> None:
    """Prints one row."""
    cosine, size = record.get("cosine_mean"), record.get("bytes")
    print(
        f"{name:31} {kind:8} {record['verification_accuracy']:9.2%} {record['tar_at_far_0.01']:7.2%} "
        f"{record['auc']:6.4f} {'' if cosine is None else format(cosine, '.4f'):>7} {record['macs']:12,} "
        f"{'' if size is None else format(size, ','):>11} {'' if seconds is None else format(seconds, '.0f'):>5}",
        flush=True,
    )


def call(program, *arguments: str) -> None:
    """Runs a program of ours.

    Raises:
        RunError: it failed, and printed why.
    """
    import contextlib

    from dcp_tf.errors import RunError

    with contextlib.redirect_stdout(sys.stderr):  # the table stands alone on standard output
        code = program.run(list(arguments))
    if code:
        raise RunError(f"{program.PROGRAM.name} ended with exit code {code}")


if __name__ == "__main__":
    sys.exit(PROGRAM.run(main))
