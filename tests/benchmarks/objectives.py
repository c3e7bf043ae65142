"""Which objective teaches the shipped denoiser most in the same time of a core?

    python -m tests.benchmarks.objectives --seconds 120

trains the denoiser from nothing on the shipped codec for so many seconds of processor time with each objective and
batch, without trajectories of its own, and prints for held-out scenes the evidence bound, the cross-entropy at four
times, and what the prediction falls short of the ideal one.
"""

import argparse
import time

import torch

from vqlearn import VQDiffusionPipeline, evidence_bound
from vqlearn.data import layouts
from vqlearn.evaluation.agreement import excess
from vqlearn.training import SceneRecipe, has_fast_bfloat16, initialise, networks, scene_stage
from vqlearn.transition import q_sample

RUNS = (("ideal", 32), ("cross_entropy", 32), ("cross_entropy", 128), ("bound", 32), ("continuous", 32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    print("| objective | batch | updates | s an update | bound, bits per token | cross-entropy at t = 100, 75, 50, 25 "
          "| KL(ideal, network) at these times, nats per picture |\n" + "|---" * 7 + "|")  # fmt: skip
    for objective, batch in RUNS:
        pipe, updates = learn(objective, batch, seconds)
        bits, nats, short = measure(pipe)
        found = (", ".join(f"{x:.{digits}f}" for x in row) for row, digits in ((nats, 3), (short, 1)))
        each = seconds / updates
        print(f"| {objective} | {batch} | {updates} | {each:.3f} | {bits:.3f} | {' | '.join(found)} |", flush=True)


def learn(objective: str, batch: int, seconds: float) -> tuple[VQDiffusionPipeline, int]:
    """A denoiser that has learned for so long, and its number of updates; the learning rate stays up."""
    parts = networks()
    parts["vqvae"] = VQDiffusionPipeline.from_pretrained().vqvae
    pipe = VQDiffusionPipeline(**parts)
    initialise(pipe.transformer, pipe.vqvae)
    recipe = SceneRecipe(steps=10**6, batch=batch, objective=objective, own_share=0.0)
    stage = scene_stage(pipe, recipe, dtype=torch.bfloat16 if has_fast_bfloat16() else None)
    begin, number = time.process_time(), 0
    while time.process_time() - begin < seconds:
        stage.step(number)
        number += 1
    stage.averaged()
    pipe.transformer.eval()
    return pipe, number


@torch.no_grad()
def measure(pipe: VQDiffusionPipeline) -> tuple[float, list[float], list[float]]:
    generator, times = torch.Generator().manual_seed(0), (100, 75, 50, 25)
    drawn = layouts.draw("test", 64, generator=generator)
    x_0 = layouts.tokens(drawn, layouts.code_table(pipe.encode))
    denoise = pipe.denoiser(drawn.captions())
    visited = torch.arange(1, 101, 3)
    bits = float(evidence_bound(denoise, x_0, pipe.schedule, times=visited, generator=generator).mean())
    nats = []
    for t in times:
        log_p = denoise(q_sample(x_0, t, pipe.schedule, generator=generator), t)
        nats.append(float(-log_p.gather(-1, x_0[..., None]).mean()))
    return bits, nats, list(excess(pipe, times, count=64).values())


if __name__ == "__main__":
    main()
