"""Critics of steering: stable-baselines3's with a LayerNorm behind each hidden layer, many as one, and their backup."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.sac.policies import SACPolicy
from torch import Tensor, nn
from torch.nn import functional as F

Values = Callable[[Tensor, Tensor], Tensor]
"""States (B, S) and actions (B, A) to the values (K, B) of K critics."""


class LayerNormCritic(ContinuousCritic):
    """stable-baselines3's critic with a LayerNorm between each hidden linear layer and its activation."""

    def __init__(
        self,
        *,
        net_arch: list[int],
        features_dim: int,
        activation_fn: type[nn.Module] = nn.ReLU,
        **options: Any,
    ) -> None:
        super().__init__(net_arch=net_arch, features_dim=features_dim, activation_fn=activation_fn, **options)
        inputs = features_dim + get_action_dim(self.action_space)
        for i in range(self.n_critics):
            layers = create_mlp(inputs, 1, net_arch, activation_fn, post_linear_modules=[nn.LayerNorm])
            self.q_networks[i] = nn.Sequential(*layers)
            self.add_module(f"qf{i}", self.q_networks[i])


class LayerNormPolicy(SACPolicy):
    """A plain actor and `LayerNormCritic`s."""

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> LayerNormCritic:
        arguments = self._update_features_extractor(self.critic_kwargs, features_extractor)
        return LayerNormCritic(**arguments).to(self.device)


def stacked(q_networks: Sequence[nn.Module]) -> Values:
    """Q-functions of equal shape, each an `nn.Sequential`, as one.

    A batched matrix product per layer in place of one for each network; gradients reach the networks' own weights.
    """

    def values(states: Tensor, actions: Tensor) -> Tensor:
        hidden = torch.cat([states, actions], dim=1).expand(len(q_networks), -1, -1)
        for layers in zip(*cast("Sequence[nn.Sequential]", q_networks), strict=True):
            if isinstance(layers[0], (nn.Linear, nn.LayerNorm)):
                weight = torch.stack([layer.weight for layer in layers])
                bias = torch.stack([layer.bias for layer in layers])
            if isinstance(layers[0], nn.Linear):
                hidden = torch.baddbmm(bias[:, None], hidden, weight.mT)
            elif isinstance(layers[0], nn.LayerNorm):
                normed = F.layer_norm(hidden, hidden.shape[-1:], eps=layers[0].eps)
                hidden = torch.addcmul(bias[:, None], normed, weight[:, None])
            else:
                hidden = layers[0](hidden)
        return hidden[..., 0]

    return values


def backed_up(
    q_networks: Sequence[nn.Module], backup: str, count: int, generator: torch.Generator
) -> Callable[[Tensor, Tensor], Tensor]:
    """States and actions to one value each (B,): the critics' `min`, `mean`, or the minimum of a `subset`.

    The subset is `count` of them, drawn anew by each call of this function (REDQ, Chen et al. 2021); critics that are
    not in it are not computed.
    """
    if backup == "subset":
        device = generator.device
        chosen = torch.randperm(len(q_networks), generator=generator, device=device)[:count].tolist()
        q_networks = [q_networks[i] for i in chosen]
    values = stacked(q_networks)
    if backup == "mean":
        return lambda states, actions: values(states, actions).mean(dim=0)
    return lambda states, actions: values(states, actions).amin(dim=0)
