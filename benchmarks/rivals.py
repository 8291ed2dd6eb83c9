"""What a scan is measured against: code as it is written by hand, in torch and numpy."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import BertConfig, BertModel


def bert(attention: str, layers: int = 12) -> Any:
    """A BERT-base of random weights, its queries and keys scaled so that attention is peaked."""
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers)
    model = BertModel._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for layer in model.encoder.layer:
            for part in (layer.attention.self.query, layer.attention.self.key):
                part.weight.mul_(8)
    return model


def by_hand(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of a default scan as a script takes them: all matrices kept, torch, a loop over pairs of heads."""
    with torch.no_grad():
        maps = torch.stack(model(**batch, output_attentions=True).attentions)  # [layer, batch, head, query, key]
    eye = torch.eye(maps.shape[-2])
    gram = maps @ maps.mT
    norms = gram.diagonal(dim1=-2, dim2=-1)
    found = {
        "fro": (gram - eye).square().sum((-1, -2)).sqrt(),
        "rcos": (gram.square() / norms[..., None] / norms[..., None, :]).mean((-1, -2)),
        "entropy": -(maps * (maps + 1e-12).log()).sum(-1).mean(-1),
        "confidence": maps.amax(-1).mean(-1),
        "first": maps[..., 0].mean(-1),
    }
    heads = maps.shape[2]
    smooth = 0.999 * maps + 0.001 / maps.shape[-1]
    pairs: dict[str, list[Tensor]] = {"js": [], "kl": [], "bc": [], "cos": []}
    for g in range(heads):
        for h in range(g + 1, heads):
            p, q = maps[:, :, g], maps[:, :, h]
            mean = (p + q) / 2
            pairs["js"].append((torch.xlogy(p, p / mean) + torch.xlogy(q, q / mean)).sum(-1).mean((-1, -2)) / 2)
            s, t = smooth[:, :, g], smooth[:, :, h]
            pairs["kl"] += [(s * (s / t).log()).sum(-1).mean((-1, -2)), (t * (t / s).log()).sum(-1).mean((-1, -2))]
            pairs["bc"].append((p * q).sqrt().sum(-1).mean((-1, -2)))
            pairs["cos"].append(torch.cosine_similarity(p, q, dim=-1).mean((-1, -2)))
    return found | {name: torch.stack(values) for name, values in pairs.items()}


def js_by_loops(maps: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """JS of all pairs of heads, a pair at a time; smoothed, and each head's entropy taken once."""
    heads, _, keys = maps.shape
    smooth = 0.001 / keys + 0.999 * maps
    entropies = -(smooth * np.log(smooth)).sum(-1)
    found = np.zeros((heads, heads))
    for g in range(heads):
        for h in range(heads):
            mixed = (smooth[g] + smooth[h]) / 2
            found[g, h] = (-(mixed * np.log(mixed)).sum(-1) - (entropies[g] + entropies[h]) / 2).mean()
    return found


def pairs_by_loops(maps: np.ndarray[Any, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """KL both ways, Bhattacharyya and cosine of all pairs, a pair at a time."""
    heads, _, keys = maps.shape
    smooth = 0.001 / keys + 0.999 * maps
    found = {name: np.zeros((heads, heads)) for name in ("kl", "bc", "cos")}
    norms = np.sqrt((maps * maps).sum(-1))
    for g in range(heads):
        for h in range(heads):
            found["kl"][g, h] = (smooth[g] * np.log(smooth[g] / smooth[h])).sum(-1).mean()
            found["bc"][g, h] = np.sqrt(maps[g] * maps[h]).sum(-1).mean()
            found["cos"][g, h] = ((maps[g] * maps[h]).sum(-1) / norms[g] / norms[h]).mean()
    return found
