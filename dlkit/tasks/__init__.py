"""The tasks: what each one needs by default and measures. Light: a task's module is imported when it is used."""

from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["higher", "lower"]

# Metrics from 0 to 100, as the field tells them. The others are losses or shares.
POINTS = frozenset({"bleu", "chrf", "bleu_1", "bleu_2", "bleu_3"})

# The keys that a tokenizer is made by, those of `dlkit.data.tokenizer_options.TokenizerOptions`.
OF_TOKENIZER = tuple(
    f"data.{key}" for key in ("tokenizer", "vocabulary", "min_count", "coverage", "normalization", "lower")
)


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task without TensorFlow.

    Args:
        target: "module:class" of the implementation, a `dlkit.tasks.task.Task`.
        title: in words, for listings.
        default_data: the dataset when none is named.
        data_kind: what its datasets are, of `dlkit.data.KINDS`.
        metrics: what evaluation reports, and which direction is better.
        per_example: the metrics that are shares of the examples, so that they can be told as "356 of 360".
        decoded: the metrics of what models write, which are not measured at each evaluation when decoding takes long.
        monitor: the metric that chooses the best checkpoint unless the recipe names another.
        look: the command that shows what a run of the task can do; `{run}` is its folder, `{view}` a view of its net.
        examples: what its examples are called, in the plural.
        shown: the array of a batch that its models look at.
        reads: that of the ids of the words which they read; empty where they read none.
        writes: that of the ids of the words which they are to say; empty where they say none.
        steps: whether they have one input at each step, and something is told of all steps, or of each.
        image_net: the attributes that lead from a model to its net of images; None where it has none.
        classifies: whether each example, or each step of it, has one label among the run's classes, and the model says
            so in logits.
        texts: whether its examples are texts, whose lengths differ.
        generates: whether its models write, a token at a time.
        instead_of_ensemble: what can be done with several of its runs, where they are not evaluated together; empty
            where they are.
        in_files: keys of the recipe that the files of a run settle, such as a tokenizer.
        defaults: "section.key" -> value, under the recipe file and above the fields' own defaults.
    """

    target: str
    title: str
    default_data: str
    data_kind: str
    metrics: dict[str, Direction]
    per_example: tuple[str, ...]
    monitor: str
    look: str
    examples: str
    shown: str
    reads: str = ""
    writes: str = ""
    steps: bool = False
    image_net: tuple[str, ...] | None = None
    decoded: tuple[str, ...] = ()
    classifies: bool = False
    texts: bool = False
    generates: bool = False
    instead_of_ensemble: str = ""
    in_files: tuple[str, ...] = ()
    defaults: dict[str, Any] = field(default_factory=dict)

    def image_net_of(self, model: Any) -> Any:
        """The net of images in a model of the task: the model itself or one inside it; None where there is none."""
        net = None if self.image_net is None else model
        for name in self.image_net or ():
            net = getattr(net, name, None)
        return net


TASKS: dict[str, TaskInfo] = {
    "image_classification": TaskInfo(
        target="dlkit.tasks.image_classification:ImageClassification",
        title="image classification",
        default_data="digits",
        data_kind="images",
        metrics={"loss": "lower", "accuracy": "higher"},
        per_example=("accuracy",),
        monitor="accuracy",
        look="dlkit inspect {run} {view} --png",
        examples="images",
        shown="images",
        image_net=(),
        classifies=True,
        defaults={
            "train.epochs": 20,
            "train.batch_size": 128,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.weight_decay": 0.05,
            "train.clip_norm": 1.0,
        },
    ),
    "translation": TaskInfo(
        target="dlkit.tasks.translation:Translation",
        title="translation",
        default_data="synthetic:reverse",
        data_kind="pairs",
        metrics={"loss": "lower", "accuracy": "higher", "exact": "higher", "bleu": "higher", "chrf": "higher"},
        per_example=("exact",),
        decoded=("exact", "bleu", "chrf"),
        monitor="loss",
        look="dlkit translate --model {run}",
        examples="pairs",
        shown="source",
        reads="source",
        writes="target_out",
        texts=True,
        generates=True,
        in_files=(*OF_TOKENIZER, "data.joint"),
        defaults={
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.clip_norm": 1.0,
        },
    ),
    "text_classification": TaskInfo(
        target="dlkit.tasks.text_classification:TextClassification",
        title="text classification",
        default_data="synthetic:order",
        data_kind="labelled_texts",
        metrics={"loss": "lower", "accuracy": "higher"},
        per_example=("accuracy",),
        monitor="accuracy",
        look='dlkit predict --model {run} "some text"',
        examples="texts",
        shown="ids",
        reads="ids",
        steps=True,
        classifies=True,
        texts=True,
        in_files=OF_TOKENIZER,
        defaults={
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.clip_norm": 1.0,
        },
    ),
    "tagging": TaskInfo(
        target="dlkit.tasks.tagging:Tagging",
        title="tagging",
        default_data="synthetic:next_marker",
        data_kind="tagged_texts",
        metrics={"loss": "lower", "accuracy": "higher", "exact": "higher"},
        per_example=("exact",),
        monitor="accuracy",
        look='dlkit predict --model {run} "some text"',
        examples="sentences",
        shown="ids",
        reads="ids",
        steps=True,
        classifies=True,
        texts=True,
        in_files=("data.vocabulary", "data.min_count", "data.lower"),
        defaults={
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.clip_norm": 1.0,
        },
    ),
    "language_modelling": TaskInfo(
        target="dlkit.tasks.language_modelling:LanguageModelling",
        title="language modelling",
        default_data="shakespeare",
        data_kind="corpus",
        metrics={"loss": "lower", "perplexity": "lower", "bits_per_character": "lower"},
        per_example=(),
        monitor="loss",
        look="dlkit generate {run}",
        examples="sequences",
        shown="inputs",
        reads="inputs",
        writes="targets",
        steps=True,
        generates=True,
        instead_of_ensemble="`dlkit evaluate RUN RUN` compares them",
        in_files=OF_TOKENIZER,
        defaults={
            "train.steps": 2000,
            "train.batch_size": 32,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "cosine",
            "train.warmup": 0.05,
            "train.clip_norm": 1.0,
        },
    ),
    "sequences": TaskInfo(
        target="dlkit.tasks.sequences:Sequences",
        title="sequences of numbers",
        default_data="synthetic:adding",
        data_kind="sequences",
        metrics={"loss": "lower", "mse": "lower", "accuracy": "higher", "recalled": "higher", "exact": "higher"},
        per_example=("exact",),
        monitor="loss",
        look="dlkit evaluate {run} --png",
        examples="sequences",
        shown="inputs",
        steps=True,
        defaults={
            "train.epochs": 5,
            "train.batch_size": 64,
            "train.optimizer": "adam",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.clip_norm": 1.0,
        },
    ),
    "video_classification": TaskInfo(
        target="dlkit.tasks.video_classification:VideoClassification",
        title="video classification",
        default_data="synthetic:moving_digits",
        data_kind="videos",
        metrics={"loss": "lower", "accuracy": "higher", "exact": "higher"},
        per_example=("exact",),
        monitor="accuracy",
        look="dlkit evaluate {run} --png",
        examples="clips",
        shown="clips",
        steps=True,
        image_net=("frame_net", "net"),
        classifies=True,
        defaults={
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.weight_decay": 0.01,
            "train.clip_norm": 1.0,
        },
    ),
    "captioning": TaskInfo(
        target="dlkit.tasks.captioning:Captioning",
        title="captioning",
        default_data="synthetic:shapes",
        data_kind="captions",
        metrics={"loss": "lower", "accuracy": "higher", "exact": "higher", "bleu": "higher", "cider": "higher"},
        per_example=("exact",),
        decoded=("exact", "bleu", "cider"),
        monitor="loss",
        look="dlkit caption IMAGE --model {run}",
        examples="captions",
        shown="images",
        writes="target_out",
        image_net=("encoder",),
        generates=True,
        instead_of_ensemble="`dlkit caption --model RUN --model RUN` writes with several, their probabilities averaged",
        in_files=OF_TOKENIZER,
        defaults={
            "train.epochs": 10,
            "train.batch_size": 64,
            "train.optimizer": "adamw",
            "train.lr": 2e-3,
            "train.schedule": "one_cycle",
            "train.clip_norm": 1.0,
            "decode.max_len": 40,
        },
    ),
}
