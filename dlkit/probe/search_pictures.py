"""The picture of a search: how much each key matters, what it acts on, and each key against the score."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dlkit.probe.charts import tick
from dlkit.probe.look import plain
from dlkit.probe.pictures import BLUE, ORANGE, fitting
from dlkit.train.search.effects import Effect, KeyEffects
from dlkit.train.search.space import Space
from dlkit.train.search.study import Plan, Result, best_of


def figure(found: Sequence[Result], told: Sequence[KeyEffects], plan: Plan, *, title: str) -> Figure:
    """Draws importances and effects as bars, then a panel for each key: complete trials as dots, pruned ones as rings.

    Args:
        found: the trials.
        told: what they say of the keys.
        plan: of the search.
        title: over the whole.
    """
    panels = len(plan.spaces) + 2
    columns = min(3, panels)
    rows = math.ceil(panels / columns)
    drawn = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.7), layout="constrained")
    _bars(drawn.add_subplot(rows, columns, 1), told)
    _effects(drawn.add_subplot(rows, columns, 2), told)
    for place, space in enumerate(plan.spaces, 3):
        _panel(drawn.add_subplot(rows, columns, place), space, found, plan)
    better = "lower" if plan.direction == "lower" else "higher"
    heading = f"{title}: best {plan.metric} on the validation split, {better} is better"
    drawn.suptitle(fitting(heading), x=0.01, ha="left", fontsize=11, parse_math=False)
    drawn.legend(loc="outside lower left", ncols=3, frameon=False, fontsize=9, handles=_handles())
    return drawn


def _handles() -> list:
    from matplotlib.lines import Line2D

    looks = [("complete", BLUE, BLUE), ("stopped early", "white", BLUE), ("the best", ORANGE, "black")]
    return [
        Line2D([], [], linestyle="", marker="o", markerfacecolor=face, markeredgecolor=edge, label=label)
        for label, face, edge in looks
    ]


def _bars(axes: Axes, told: Sequence[KeyEffects]) -> None:
    axes.barh(range(len(told)), [100 * (each.importance or 0.0) for each in told], color=BLUE, height=0.6)
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of what makes trials good, %", fontsize=9)
    known = any(each.importance is not None for each in told)
    heading = "importance (PED-ANOVA)" if known else "importance: too few complete trials"
    _keys(axes, told, heading)


def _effects(axes: Axes, told: Sequence[KeyEffects]) -> None:
    """Two bars a key; those that chance does not easily come by are filled."""
    for shift, colour, effects in (
        (-0.18, BLUE, [each.early for each in told]),
        (0.18, ORANGE, [each.gap for each in told]),
    ):
        for place, effect in enumerate(effects):
            if effect is not None:
                face = colour if effect.is_significant else "white"
                axes.barh(place + shift, effect.strength, height=0.3, facecolor=face, edgecolor=colour)
    axes.set_xlim(0, 1)
    axes.set_xlabel("correlation ratio of ranks; hollow: chance does as well", fontsize=9)
    known: list[Effect | None] = [one for each in told for one in (each.early, each.gap)]
    heading = "blue: early training error, orange: gap" if any(known) else "effects: too few trials"
    _keys(axes, told, heading)


def _keys(axes: Axes, told: Sequence[KeyEffects], heading: str) -> None:
    axes.set_yticks(range(len(told)), [fitting(each.key, 30) for each in told], parse_math=False)
    axes.set_ylim(len(told) - 0.5, -0.5)  # the first one on top
    axes.set_title(heading, fontsize=10, loc="left")
    plain(axes)


def _panel(axes: Axes, space: Space, found: Sequence[Result], plan: Plan) -> None:
    best = best_of(found, plan)
    for each in found:
        if each.score is None or space.key not in each.values:
            continue
        is_best = best is not None and each.number == best.number
        face = ORANGE if is_best else BLUE if each.state == "complete" else "white"
        value = each.values[space.key]
        x = space.choices.index(str(value)) if space.kind == "choice" else float(value)
        axes.plot(
            [x], [each.score], marker="o", markersize=7 if is_best else 5, markerfacecolor=face,
            markeredgecolor="black" if is_best else BLUE, alpha=0.9, zorder=3 if is_best else 2,
        )  # fmt: skip
    if space.kind == "choice":
        axes.set_xticks(range(len(space.choices)), [fitting(each, 14) for each in space.choices], parse_math=False)
        axes.set_xlim(-0.5, len(space.choices) - 0.5)
    else:
        _range(axes, space)
    plain(axes, x=fitting(space.key, 40), y=plan.metric)


def _range(axes: Axes, space: Space) -> None:
    """The whole range, also where later rounds have looked at a part alone."""
    margin = 0.03
    if not space.log:
        axes.set_xlim(space.low - margin * (space.high - space.low), space.high + margin * (space.high - space.low))
        return
    axes.set_xscale("log")
    factor = (space.high / space.low) ** margin
    axes.set_xlim(space.low / factor, space.high * factor)
    powers = range(math.ceil(math.log10(space.low) - 1e-9), math.floor(math.log10(space.high) + 1e-9) + 1)
    ticks = [10.0**power for power in powers]
    if len(ticks) < 2:
        ticks = [space.low, math.sqrt(space.low * space.high), space.high]
    axes.set_xticks(ticks, [tick(value) for value in ticks])
    axes.set_xticks([], minor=True)
