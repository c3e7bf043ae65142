"""The first layers of a network, for tests of everything but how good its predictions are."""

from vqlearn import Transformer2DModel


def first_layers(network: Transformer2DModel, count: int = 2) -> Transformer2DModel:
    """A network with the same weights, device and dtype, which ends after `count` layers."""
    settings = {key: value for key, value in network.config.items() if key[0] != "_" and key != "norm_type"}
    short = Transformer2DModel(**settings | {"num_layers": count}).to(network.out.weight)
    short.load_state_dict({name: network.state_dict()[name] for name in short.state_dict()})
    return short.eval()
