"""Does the published bound or plain cross-entropy teach the tiny denoiser faster?

    python tests/benchmarks/objectives.py --steps 300

trains the denoiser from nothing with each objective for the same number of updates, batches and noise
seeds, on the shipped codec, and prints the evidence bound and the cross-entropy on 64 held-out scenes.
"""

import argparse

import torch
from tqdm import tqdm

from vqlearn import VQDiffusionPipeline, evidence_bound, tiny
from vqlearn.training import DenoiserRecipe, DenoiserStage, batch_of_scenes, has_fast_bfloat16, initialise
from vqlearn.transition import q_sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    print("| objective | updates | bound, bits per token | cross-entropy at t = 100, 75, 50, 25, nats per token |")
    print("|---|---|---|---|")
    for objective in ("cross_entropy", "bound"):
        pipe = learn(objective, steps)
        bits, nats = measure(pipe)
        print(f"| {objective} | {steps} | {bits:.3f} | {', '.join(f'{x:.3f}' for x in nats)} |", flush=True)


def learn(objective: str, steps: int) -> VQDiffusionPipeline:
    parts = tiny.networks()
    parts["vqvae"] = VQDiffusionPipeline.from_pretrained().vqvae
    pipe = VQDiffusionPipeline(**parts)
    initialise(pipe.transformer, pipe.vqvae.quantize.embedding.weight)
    null_text = pipe.learned_classifier_free_sampling_embeddings
    recipe = DenoiserRecipe(steps=10**6, objective=objective)  # the learning rate stays up
    networks = (pipe.vqvae, pipe.transformer, pipe.text_encoder, null_text, pipe.tokenizer, pipe.schedule)
    stage = DenoiserStage(*networks, recipe, autocast=has_fast_bfloat16())
    for number in tqdm(range(steps), desc=objective):
        stage.step(number)
    stage.averaged()
    pipe.transformer.eval()
    return pipe


@torch.no_grad()
def measure(pipe: VQDiffusionPipeline) -> tuple[float, list[float]]:
    images, captions = batch_of_scenes("test", 0, 64)
    x_0, denoise = pipe.encode(images), pipe.denoiser(captions)
    generator = torch.Generator().manual_seed(0)
    times = torch.arange(1, 101, 3)
    bits = float(evidence_bound(denoise, x_0, pipe.schedule, times=times, generator=generator).mean())
    nats = []
    for t in (100, 75, 50, 25):
        log_p = denoise(q_sample(x_0, t, pipe.schedule, generator=generator), t)
        nats.append(float(-log_p.gather(-1, x_0[..., None]).mean()))
    return bits, nats


if __name__ == "__main__":
    main()
