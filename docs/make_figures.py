"""The figures of docs/indexer.md and docs/drafts.md, and the tables behind them.

python docs/make_figures.py         # writes docs/figures/*.svg
"""

from pathlib import Path

import numpy as np
import pandas as pd
from line_chart import Axis, Line, chart

import sim
from sim.catalog import model
from sim.cost.latency import price_all
from sim.deployment.plan import resolve
from sim.mechanisms import attention_parts, published_cost, speculation_gain
from sim.mechanisms.attention import reference
from sim.model.attention import Batch, attention_operations
from sim.model.layout import Layout
from sim.step.pricing import cost_model, step_operations
from sim.validation import draft_gains
from sim.validation.position_curves import cost_at, curve_scenario, intercepts, settings, slopes

HERE = Path(__file__).parent
FIGURES = HERE / "figures"
SCENARIOS = HERE.parent / "scenarios"
DENSE, SPARSE = "deepseek-v3.1", "deepseek-v3.2"
TOKENS = Axis("tokens of context", log=True)


def save(name: str, svg: str) -> None:
    """Write one figure."""
    (FIGURES / f"{name}.svg").write_text(svg, encoding="utf-8")


def work() -> None:
    """FLOP of the attention cores of a whole prompt: L^2 dense, L^2 for the indexer (17 times less), L k sparse."""
    lengths = [2**n for n in range(11, 18)]
    sparse = Layout(model(SPARSE), 1, 1, 1, 8)
    dense = Layout(model(DENSE), 1, 1, 1, 8)

    def flop(layout: Layout, kernel: str) -> list[tuple[float, float]]:
        batches = [Batch("prefill", 1, n, 0) for n in lengths]
        blocks = [attention_operations(layout, layout.model.attention, batch)[0] for batch in batches]
        return [
            (n, sum(p.flop * 61 for p in block.parts if p.kernel == kernel) / 1e12)
            for n, block in zip(lengths, blocks, strict=True)
        ]

    lines = [
        Line("dense core (V3.1), MHA form: 81,920 L²/2 per layer", flop(dense, "mla_prefill"), colour=0),
        Line("sparse core (V3.2): 278,528 x 2,048 L", flop(sparse, "sparse_mla_prefill"), colour=1),
        Line("index logits (V3.2), in FP8: 16,384 L²/2", flop(sparse, "index_logits"), dashed=True, colour=1),
    ]
    save(
        "attention-work",
        chart("Work of a prompt's attention", lines, TOKENS, Axis("TFLOP, all layers", log=True)),
    )


def curves() -> None:
    """Cost against position, published beside simulated; and the slopes and intercepts behind it."""
    published = published_cost()
    for phase in ("prefill", "decode"):
        lines = []
        positions = np.linspace(0, 131072, 17).tolist()
        for i, name in enumerate((DENSE, SPARSE)):
            mine = published[(published.model == name) & (published.phase == phase)]
            usd = cost_at(curve_scenario(name), phase, positions, settings()["batch"][phase])
            points = list(zip(mine.position, mine.usd_per_million, strict=True))
            lines.append(Line(f"{name}, published", points, dashed=True, colour=i))
            lines.append(Line(f"{name}, here", list(zip(positions, usd, strict=True)), colour=i))
        axes = Axis("position, tokens"), Axis("USD per million tokens")
        save(f"cost-{phase}", chart(f"Cost of a token by position, H800 at $2: {phase}", lines, *axes))
    print(slopes().to_string(index=False), "\n")
    print(intercepts().to_string(index=False), "\n")


def service() -> None:
    """Price of a service by context (scenarios/context), and the ratio that is claimed."""
    rows = []
    for kilo in (4, 16, 64, 128):
        for name in ("v3.1", "v3.2"):
            result = sim.simulate(sim.load(SCENARIOS / "context" / f"{name}-{kilo}k.yaml")).json()
            usd = result["cost"]["usd_per_million"]["blended"]
            rows.append({"tokens": kilo * 1024, "model": name, "usd_per_million": usd})
    table = pd.DataFrame(rows).pivot(index="tokens", columns="model", values="usd_per_million")
    print(table.assign(ratio=table["v3.1"] / table["v3.2"]).round(3).to_string(), "\n")
    lines = [
        Line(f"deepseek-{name}", list(table[name].items()), colour=i)
        for i, name in enumerate(("v3.1", "v3.2"))
    ]
    save(
        "service-price",
        chart(
            "Price of a service by context, 8 H200", lines, TOKENS, Axis("USD per million tokens, blended")
        ),
    )


def blocks() -> None:
    """Seconds of the attention blocks as measured, H200: a prompt of L tokens, and a decode step of 32 at L."""
    scenario = sim.load(SCENARIOS / "context" / "v3.2-4k.yaml")
    for phase, lengths in (
        ("prefill", [2**n for n in range(9, 18)]),
        ("decode", [2**n for n in range(9, 18)]),
    ):
        lines = []
        for i, name in enumerate((DENSE, SPARSE)):
            mine = resolve(scenario.model_copy(update={"model": name}))
            step, cost = step_operations(mine, phase), cost_model(mine)
            points = []
            for n in lengths:
                if phase == "decode":
                    operations, count = step.decode_attention(32, n), 32
                else:
                    operations, count = step.prefill_attention(1, n, 0), n
                points.append((float(n), sum(p.total_s for p in price_all(operations, cost)) / count * 1e6))
            lines.append(Line(name, points, colour=i))
        says = "a prompt of so many tokens" if phase == "prefill" else "32 sequences of so many tokens"
        title = f"Attention per token, all layers, H200: {says}"
        save(f"blocks-{phase}", chart(title, lines, TOKENS, Axis("microseconds per token", log=True)))
    parts = attention_parts(reference(), [SPARSE], "decode", [1024, 4096, 16384, 65536, 131072], 32)
    print(parts.pivot(index="context", columns="part", values="seconds").mul(1e3).round(2).to_string(), "\n")


def drafts() -> None:
    """Gain of drafts by batch on 8 H200 (DP8, EP8), and the published gains beside simulated ones."""
    scenario = sim.load(SCENARIOS / "drafts" / "3.yaml")
    table = speculation_gain(scenario, (1, 2, 3), [2**n for n in range(8)], 2048)
    lines = [
        Line(f"{k} draft{'s' if k > 1 else ''}", list(zip(mine.batch, mine.gain, strict=True)), colour=i)
        for i, (k, mine) in enumerate(table.groupby("draft_tokens"))
    ]
    axes = Axis("sequences per GPU", log=True), Axis("tokens/s over no drafts")
    save("drafts-by-batch", chart("What drafts gain: V3.2, 8 H200, 2K context", lines, *axes))
    tp8 = draft_gains.entry_scenario(draft_gains.entries()[0])
    print(
        speculation_gain(tp8, (1, 2, 3), (1, 2, 4, 8, 16, 32, 64), 1024).round(2).to_string(index=False), "\n"
    )
    gains = draft_gains.cases(draft_gains.ids())
    print(pd.DataFrame([case.json() for case in gains]).round(3).to_string(index=False))


def main() -> None:
    """Draw everything."""
    FIGURES.mkdir(exist_ok=True)
    for draw in (work, curves, service, blocks, drafts):
        draw()


if __name__ == "__main__":
    main()
