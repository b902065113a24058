"""The transformer of the in-context-regression literature: GPT-2 that reads and writes numbers.

Tokens are x_1, y_1, x_2, ... (y with zeros behind it), taken to the width by one linear layer; the
prediction of y_i is read at x_i by another, as in the code of Garg et al. (2022,
dtsip/in-context-learning), which arXiv 2309.10105 builds on.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2Model

from forgetlib.errors import InputError
from forgetlib.implicit.bayes import require_scale
from forgetlib.implicit.prompts import generator, require_context
from forgetlib.implicit.settings import Setting

POSITIONS = 0.5  # standard deviation of first embeddings of positions
READ_OUT = 0.02  # and of the last layer's weights
CHUNK = 1024  # prompts of one pass where nothing is trained; it bounds memory


class Regressor(nn.Module):
    """Predict the label of each query of a prompt from the examples before it.

    Weights are drawn from the setting's seed, and the global generators stay as they are.
    """

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.dimension, self.n_points = setting.dimension, setting.n_points
        config = GPT2Config(
            vocab_size=1,  # no token has an embedding: vectors come in
            n_positions=2 * setting.n_points + 1,
            n_embd=setting.width,
            n_layer=setting.layers,
            n_head=setting.heads,
            # The same function as "gelu_new", in one kernel: a fifth of a step on a CPU.
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
            bos_token_id=None,
            eos_token_id=None,
        )
        with torch.random.fork_rng(devices=[]):  # transformers draws weights, replaced below
            self.read_in = nn.Linear(setting.dimension, setting.width)
            self.backbone = GPT2Model(config)
            self.read_out = nn.Linear(setting.width, 1)
        self._draw(setting)

    def _draw(self, setting: Setting) -> None:
        """Draw first weights of variance 1 / inputs, and positions that can be told apart.

        GPT-2's own 0.02 is meant for thousands of inputs. At these widths attention begins so
        even, and positions so faint beside numbers of variance 1, that training stays for long on
        a plateau, where labels are not matched with their examples.
        """
        rng = generator(setting.seed, "weights")
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if weight.ndim < 2:
                    weight.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
                    continue
                # Linear layers have (outputs, inputs), those of GPT-2 (inputs, outputs).
                inputs = weight.shape[0] if "backbone.h." in name else weight.shape[1]
                deviation = 1 / math.sqrt(inputs)
                if name.endswith("c_proj.weight"):
                    deviation /= math.sqrt(2 * setting.layers)  # summed over so many layers
                elif name.endswith("wpe.weight"):
                    deviation = POSITIONS
                elif name.startswith("read_out"):
                    deviation = READ_OUT  # first predictions near 0, the prior's mean
                drawn = deviation * rng.standard_normal(tuple(weight.shape))
                weight.copy_(torch.from_numpy(drawn))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Predict y[:, i] from x[:, :i + 1] and y[:, :i], (n, k + 1).

        x: (n, k + 1, d), y: (n, k); what y has beyond k is not read. Raises InputError for more
        examples than the setting's n_points, and for another d.
        """
        n, n_queries, dimension = x.shape
        require_context(n_queries - 1, self.n_points)
        if dimension != self.dimension:
            raise InputError(
                "entries of x",
                expected=f"{self.dimension}, which the model was made for",
                found=dimension,
                do="Draw prompts of the model's own setting.",
            )
        tokens = x.new_zeros(n, n_queries, 2, dimension)
        tokens[:, :, 0] = x
        tokens[:, :-1, 1, 0] = y[:, : n_queries - 1]
        tokens = tokens.view(n, 2 * n_queries, dimension)[:, :-1]  # (n, 2k + 1, d)
        hidden = self.backbone(inputs_embeds=self.read_in(tokens)).last_hidden_state
        return self.read_out(hidden[:, ::2])[..., 0]  # (n, k + 1)


def as_tensor(values: np.ndarray) -> Tensor:
    """Return an array as a tensor of float32."""
    return torch.from_numpy(np.ascontiguousarray(values, np.float32))


def predict(model: Regressor, x: np.ndarray, y: np.ndarray, *, gamma: float = 1.0) -> np.ndarray:
    """Predict w.x of prompts of 0, 1, ..., k examples, (n, k + 1), in float64.

    x: (n, k + 1, d), y: (n, k)
    gamma: scale of the labels, above 0: the prompt is asked with gamma * y and the answer divided
        by gamma (the conjugate prompt)

    Raises InputError for another gamma and for prompts that are longer than the model's.
    """
    gamma = require_scale("gamma", gamma)
    found = []
    with torch.no_grad():
        for start in range(0, len(x), CHUNK):
            part = slice(start, start + CHUNK)
            found.append(model(as_tensor(x[part]), as_tensor(gamma * y[part])).double().numpy())
    return np.concatenate(found) / gamma
