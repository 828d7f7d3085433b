"""Charts of the mechanisms, drawn from the tables of `sim.mechanisms`."""

from typing import Final

import pandas as pd
import plotly.graph_objects as go

from sim.report.look import GREY, Chart, axes, colour, line

FROM_ZERO: Final = {"rangemode": "tozero"}
PART_COLOURS: Final = {"core": colour(0), "indexer": colour(1), "projections": GREY}


def release(model: str) -> str:
    """A model's name where room is short: V3.2."""
    return model.removeprefix("deepseek-").upper()


def cache_chart(table: pd.DataFrame) -> Chart:
    """Bytes per cached token by model and format (`cache_bytes`)."""
    figure = go.Figure()
    table = table.sort_values("total_bytes", ascending=False)
    label = (
        table.model + ", " + table.kv_cache.str.upper() + " (" + table.attention.str.replace(" + ", "/") + ")"
    )
    for name, column, shade in (
        ("latent and RoPE key, or keys and values", "entry_bytes", colour(0)),
        ("index keys (DSA)", "index_bytes", colour(1)),
    ):
        figure.add_trace(
            go.Bar(name=name, y=list(label), x=list(table[column] / 1e3), marker={"color": shade}, orientation="h",
                   customdata=table[["total_bytes", "per_head_bytes"]].to_numpy() / 1e3,
                   hovertemplate="%{x:.1f} kB of %{customdata[0]:.1f} kB per token<br>without compression "
                   "%{customdata[1]:,.0f} kB")
        )  # fmt: skip
    figure = axes(figure, "kB per token", "", height=90 + 17 * len(table), barmode="stack",
                  yaxis={"tickfont": {"size": 11}, "dtick": 1})  # fmt: skip
    return Chart(
        "cache",
        "What one cached token weighs",
        "A latent cache (MLA, DSA) is far smaller than keys and values of every head; sparse attention adds index "
        "keys to it, it does not shrink it.",
        figure,
        table,
        terms=("KV cache", "MLA", "DSA"),
    )


def position_chart(simulated: pd.DataFrame, published: pd.DataFrame, phase: str) -> Chart:
    """Price of a token by its position (`cost_by_position`), the published line behind."""
    figure = go.Figure()
    for i, model in enumerate(simulated.model.unique()):
        behind = published[(published.model == model) & (published.phase == phase)]
        mine = simulated[(simulated.model == model) & (simulated.phase == phase)]
        figure.add_trace(
            line(f"{release(model)}, published", behind.position, behind.usd_per_million, colour(i), mode="lines",
                 line={"dash": "dot", "width": 3}, opacity=0.55,
                 hovertemplate="published: $%{y:.3g} at %{x:,} tokens<extra></extra>")
        )  # fmt: skip
        figure.add_trace(
            line(f"{release(model)}, here", mine.position, mine.usd_per_million, colour(i), mode="lines+markers",
                 customdata=mine.step_s * 1e3,
                 hovertemplate="$%{y:.3g} at %{x:,} tokens<br>step of %{customdata:.1f} ms<extra></extra>")
        )  # fmt: skip
    figure = axes(figure, "position in the sequence, tokens", "USD per million tokens")
    table = pd.concat(
        [simulated.assign(kind="here"), published[published.phase == phase].assign(kind="published")]
    )
    return Chart(
        f"position-{phase}",
        f"Price of a token by its position: {phase}",
        "With dense attention (V3.1) a token costs more the further back it must look; with sparse attention (V3.2) "
        "hardly. Dotted: what DeepSeek published, at $2 per H800-hour.",
        figure,
        table[table.phase == phase],
        terms=("DSA", "MLA", "indexer"),
    )


def parts_chart(table: pd.DataFrame) -> Chart:
    """Seconds of attention by context and part (`attention_parts`)."""
    figure = go.Figure()
    dashes = dict(zip(table.model.unique(), ("solid", "dot", "dash"), strict=False))
    for (model, part), mine in table.groupby(["model", "part"], sort=False):
        figure.add_trace(
            line(f"{part}, {release(str(model))}", mine.context, mine.seconds * 1e3, PART_COLOURS[str(part)],
                 mode="lines+markers", line={"dash": dashes[model]}, customdata=mine.priced_by,
                 hovertemplate="%{y:.3g} ms at %{x:,} tokens<br>%{customdata}")
        )  # fmt: skip
    return Chart(
        "parts",
        "Attention of one step, in parts",
        "Dense attention (V3.1) reads the whole cache, so its core grows with context; with DSA (V3.2) the core stays "
        "flat once 2,048 keys are kept, and the cheap indexer grows instead.",
        axes(figure, "context, tokens", "ms per step, all layers", log_x=True, log_y=True),
        table,
        terms=("DSA", "MLA"),
    )


def imbalance_chart(table: pd.DataFrame) -> Chart:
    """Load of the hottest rank (`expert_imbalance`)."""
    figure = go.Figure()
    for i, (name, mine) in enumerate(table.groupby("balancing", sort=False)):
        shown = "not balanced" if name == "none" else str(name)
        figure.add_trace(
            line(shown, mine.tokens_per_rank, mine.imbalance, colour(i), mode="lines+markers",
                 hovertemplate="%{y:.2f} x the mean at %{x:,.0f} tokens")
        )  # fmt: skip
    figure.add_hline(y=1, line={"dash": "dot", "color": GREY})
    figure = axes(figure, "tokens per rank and step", "hottest rank / mean", log_x=True, yaxis=FROM_ZERO)
    return Chart(
        "imbalance",
        "Load of the busiest GPU",
        "A step waits for the GPU whose experts are chosen most. Copies of hot experts level the load, the less so "
        "the older the load that they were placed by.",
        figure,
        table,
        terms=("redundant experts", "popularity sigma", "staleness rho"),
    )


def nodes_chart(table: pd.DataFrame) -> Chart:
    """Nodes that a token reaches (`nodes_touched`)."""
    figure = go.Figure()
    for i, (name, mine) in enumerate(table.groupby("limit", sort=False)):
        figure.add_trace(
            line(str(name), mine.ep, mine.nodes, colour(i), mode="lines+markers",
                 customdata=mine[["gpus", "rdma_copies"]].to_numpy(),
                 hovertemplate="EP%{x}: %{y:.2f} nodes, %{customdata[0]:.2f} GPUs<br>"
                 "%{customdata[1]:.2f} copies over the network")
        )  # fmt: skip
    sizes = sorted(table.ep.unique())
    figure = axes(figure, "GPUs of the EP group", "nodes per token", log_x=True, yaxis=FROM_ZERO,
                  xaxis={"tickvals": sizes, "ticktext": [str(n) for n in sizes]})  # fmt: skip
    return Chart(
        "nodes",
        "Nodes that a token reaches",
        "Every node that a token's experts sit on gets a copy over the network; letting a token use only some groups "
        "of experts bounds that.",
        figure,
        table,
        terms=("node limit", "EP"),
    )


def speculation_chart(table: pd.DataFrame) -> Chart:
    """Gain of drafts by batch (`speculation_gain`)."""
    figure = go.Figure()
    for i, (k, mine) in enumerate(table.groupby("draft_tokens", sort=False)):
        figure.add_trace(
            line(f"{k} draft{'s' if k != 1 else ''} ({mine.accept_length.iloc[0]:.2f} tokens per step)", mine.batch,
                 mine.gain, colour(i), mode="lines+markers",
                 hovertemplate="%{y:.2f} x at %{x} sequences per rank")
        )  # fmt: skip
    figure.add_hline(y=1, line={"dash": "dot", "color": GREY})
    figure = axes(
        figure, "sequences per attention-DP rank", "tokens/s over no drafts, x", log_x=True, yaxis=FROM_ZERO
    )
    return Chart(
        "speculation",
        "What drafts (MTP) gain",
        "While a step waits for weights, verifying drafts is nearly free; in a large batch it costs as much as it "
        "brings, and below the dotted line drafts lose.",
        figure,
        table,
        terms=("MTP", "accept length"),
    )
