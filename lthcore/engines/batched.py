"""Train replicates in lockstep: the same step for all of them, with a leading axis R; made for a GPU.

These networks are so small that a GPU spends most of its time on kernel launches. So replicates share every
launch, and the whole step is recorded once, as a CUDA graph, and launched as one.
"""

import warnings

import torch
import torch.nn.functional as F
from torch.func import functional_call, vmap

from ..models import build

CHUNK = 500  # images evaluated at once: on a CPU their activations stay in the cache,
EVALUATED = 1 << 30  # and on a GPU ten times as many, or as many of all replicates as take so many bytes


def optimizer(parameters, config, lr=None, **options):
    """The optimizer of the settings, with their momentum and weight decay; `lr` in place of theirs."""
    options |= {"lr": config.lr if lr is None else lr, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, **options)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer](parameters, **options)


def activations(net, shape):
    """How many numbers the layers of a network give for one image of `shape` (C, H, W), three times: int.

    Three, for what a layer gives goes through an activation and a pool or a copy. The network is on the device "meta".
    """
    counts = []
    hooks = [layer.register_forward_hook(lambda _, __, out: counts.append(out.numel())) for layer in net.children()]
    net(torch.empty(1, *shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return 3 * sum(counts)


class Lockstep:
    """Plain torch over R replicates of one arm.

    Parameters
    ----------
    values : list of dict of str to Tensor
        Each replicate's starting weights and biases.
    masks : list of dict of str to bool Tensor
    data : list of lthcore.data.Split
        On the device to train on; all with the same `train`.
    config : Config
    first : int
        Step at which the training starts, for a learning rate that rises.
    record : callable or None
        See :func:`record_graph`, which is used on a GPU.

    Raises
    ------
    ValueError
        If the replicates do not share their images.
    """

    def __init__(self, values, masks, data, config, record=None, first=0):
        if any(d.train[0] is not data[0].train[0] for d in data):
            raise ValueError("replicates in lockstep must share their training images")
        self.images, self.labels = data[0].train
        device = self.labels.device
        self.net = build(config.model, config.activation, config.pool, "meta", config.dropout)
        self.config, self.batch_size, self.done = config, config.batch_size, first
        self.masks = {f"{name}.weight": torch.stack([m[name] for m in masks]).to(device) for name in masks[0]}
        self.parameters = {name: torch.stack([v[name] for v in values]).to(device) for name in values[0]}
        self.frozen = {name: self.parameters[name].clone() for name in self.masks} if config.frozen else {}
        for name, kept in self.masks.items() if not config.frozen else ():
            self.parameters[name] *= kept
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        on_gpu = device.type == "cuda"
        if on_gpu:  # the same numbers in every run, and those of a CPU but for rounding
            torch.backends.cudnn.deterministic, torch.backends.cudnn.allow_tf32 = True, False
        self.chunk = CHUNK
        if on_gpu:
            bytes_of_one = 4 * len(values) * activations(self.net, self.images.shape[1:])
            self.chunk = max(1, min(10 * CHUNK, EVALUATED // bytes_of_one))
        options = {"capturable": True} if on_gpu and config.optimizer != "sgd" else {}
        # while it rises the rate is a tensor, which a recorded step reads anew
        self.rate = torch.tensor(config.lr, device=device) if config.warmup else None
        self.optimizer = optimizer(self.parameters.values(), config, self.rate, **options)
        record = record or (record_graph if on_gpu else None)
        self.replay = self._checked(record) if record else None

    def _step(self, batch):
        """One optimizer step on (R, B) places of training images: losses (R,)."""
        logits, labels = self._forward(self.images[batch]), self.labels[batch]
        losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(batch.shape).mean(1)
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        for (name, parameter), gradient in zip(self.parameters.items(), gradients, strict=True):
            # no gradient, no moment, no step, and no decay of 0: a pruned weight stays exactly 0
            gradient = gradient.contiguous()  # a fused optimizer reads it as the parameter lies
            if name in self.masks:
                gradient.mul_(self.masks[name])
                if self.config.frozen_below:
                    gradient.mul_(parameter.detach() >= self.config.frozen_below)
            parameter.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            for name, start in self.frozen.items():  # whatever the optimizer did
                self.parameters[name].copy_(torch.where(self.masks[name], self.parameters[name], start))
        return losses.detach()

    def _forward(self, images):
        call = vmap(lambda values, x: functional_call(self.net, values, (x,)), randomness="different")
        return call(self.parameters, images)

    def _checked(self, record):
        """The recorded step, if its first steps equal the plain ones to the last bit, else None; nothing has moved.

        Where recording fails, too, plain steps are used: they show whether the device is to blame. Without memory it
        is not asked for less: fewer replicates are the better answer.
        """
        start = self.values()
        places = torch.arange(3 * len(next(iter(start.values()))) * self.batch_size, device=self.labels.device)
        batches = (places % len(self.labels)).view(3, -1, self.batch_size)
        try:
            replay = record(self._step, batches[0])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._begin(start)
            reason = str(error).splitlines()[0]
            warnings.warn(f"the step cannot be recorded here ({reason}): plain steps are used", stacklevel=2)
            return None
        seen = []
        for step in (self._step, replay):
            self._begin(start)
            seen.append([torch.stack([step(batch) for batch in batches]), *self.values().values()])
        self._begin(start)
        if all(torch.equal(a, b) for a, b in zip(*seen, strict=True)):
            return replay
        warnings.warn("the recorded step does not equal the plain one here: plain steps are used", stacklevel=2)
        return None

    def _begin(self, values):
        """As before the first step: these values, and an optimizer that has seen nothing."""
        self.restore(values)
        for state in self.optimizer.state.values():
            for moment in state.values():
                if moment is not None:
                    moment.zero_()

    def advance(self, order):
        """One step per batch of `order`, (R, n) places of training images: losses, (steps, R) Tensor."""
        losses = []
        self.net.train()
        for batch in order.split(self.batch_size, dim=1):  # the last one may be short
            if self.rate is not None:
                self.rate.fill_(self.config.rates(self.done, 1)[0])
            self.done += 1
            losses.append((self.replay if self.replay and batch.shape[1] == self.batch_size else self._step)(batch))
        return torch.stack(losses)

    def logits(self, images):
        """Logits (R, N, 10) of images (R, N, 1, 28, 28)."""
        self.net.eval()
        with torch.no_grad():
            return torch.cat([self._forward(x) for x in images.split(self.chunk, dim=1)], dim=1)

    def values(self):
        """Weights and biases as they are now, with a leading axis R: dict of str to Tensor, copies."""
        return {name: value.detach().clone() for name, value in self.parameters.items()}

    def restore(self, values):
        """Put these values in place of the present ones; the optimizer's moments stay."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])


def record_graph(step, batch):
    """Record `step` as a CUDA graph.

    Parameters
    ----------
    step : callable
        (R, B) places -> (R,) losses; allocates nothing that outlives it, and never waits for the device.
    batch : (R, B) Tensor
        An example.

    Returns
    -------
    callable
        The same step, launched as a whole.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):  # first calls allocate and choose algorithms, which cannot be recorded
            step(batch)
    torch.cuda.current_stream().wait_stream(aside)
    given, graph = batch.clone(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses = step(given)

    def replay(batch):
        given.copy_(batch)
        graph.replay()
        return losses.clone()

    return replay
