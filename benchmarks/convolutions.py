"""Where ResNet-38's training step spends its time: every convolution of it alone, against PyTorch eager.

    python benchmarks/convolutions.py [--size=224] [--batch_size=2] [--repeats=3]

One row a direction: the sum over the network's convolutions of what one takes alone, both memory formats of PyTorch
timed and the better one taken for each shape. Convolutions of the frozen front have a forward pass only. The extra
`torch` is needed.
"""

import argparse
import functools
import statistics
from collections import Counter

import jax
import torch
from timing import in_turn, report
from torch_resnet38 import Classifier

from ssenet_jax.models.layers import Conv


def shapes_of(size: int, batch_size: int) -> Counter:
    """How often the network has a convolution of (input shape NCHW, channels, kernel, stride, dilation, learns)."""
    model, found = Classifier(), Counter()

    def note(module, arguments, _):
        x, learns = arguments[0], module.weight.requires_grad
        found[
            tuple(x.shape), module.out_channels, module.kernel_size[0], module.stride[0], module.dilation[0], learns
        ] += 1

    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        model(torch.zeros(batch_size, 3, size, size))
    return found


def jax_ways(shape, channels, kernel, stride, dilation) -> dict:
    layer = Conv(channels, kernel, stride, dilation)
    x = jax.numpy.zeros((shape[0], *shape[2:], shape[1]))
    variables = layer.init(jax.random.key(0), x)
    forward = jax.jit(layer.apply)
    cotangent = jax.numpy.zeros(forward(variables, x).shape)
    to_input = jax.jit(lambda x, g: jax.vjp(lambda x: layer.apply(variables, x), x)[1](g))
    to_weights = jax.jit(lambda v, g: jax.vjp(lambda v: layer.apply(v, x), v)[1](g))
    return {
        "forward": functools.partial(forward, variables, x),
        "gradient of the input": functools.partial(to_input, x, cotangent),
        "gradient of the weights": functools.partial(to_weights, variables, cotangent),
    }


def torch_ways(memory_format, shape, channels, kernel, stride, dilation) -> dict:
    layer = torch.nn.Conv2d(shape[1], channels, kernel, stride, dilation * (kernel // 2), dilation, bias=False)
    layer = layer.to(memory_format=memory_format)
    x = torch.zeros(shape).contiguous(memory_format=memory_format)
    settings = ((stride,) * 2, (dilation * (kernel // 2),) * 2, (dilation,) * 2, False, (0, 0), 1)
    with torch.no_grad():
        cotangent = torch.zeros_like(layer(x))

    def forward():
        with torch.no_grad():
            layer(x)

    def backward(mask):
        torch.ops.aten.convolution_backward(cotangent, x, layer.weight, None, *settings, mask)

    return {
        "forward": forward,
        "gradient of the input": functools.partial(backward, (True, False, False)),
        "gradient of the weights": functools.partial(backward, (False, True, False)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch_size", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    ours, theirs = Counter(), Counter()
    for (*convolution, learns), count in shapes_of(given.size, given.batch_size).items():
        ways = {f"jax, {name}": way for name, way in jax_ways(*convolution).items()}
        for memory_format in (torch.contiguous_format, torch.channels_last):
            of_format = torch_ways(memory_format, *convolution)
            ways |= {f"{memory_format}, {name}": way for name, way in of_format.items()}
        seconds = {name: statistics.median(times) for name, times in in_turn(ways, given.repeats).items()}
        for name in ("forward", *(("gradient of the input", "gradient of the weights") if learns else ())):
            ours[name] += count * seconds[f"jax, {name}"]
            theirs[name] += count * min(seconds[f"{f}, {name}"] for f in (torch.contiguous_format, torch.channels_last))
    rows = [
        {"what": name, "jax, s": f"{ours[name]:.2f}", "PyTorch, s": f"{theirs[name]:.2f}",
         "time ratio": f"{ours[name] / theirs[name]:.2f}"} for name in ours
    ]  # fmt: skip
    note = f"ResNet-38, {given.size} x {given.size}, batch {given.batch_size}, float32; medians of {given.repeats}."
    report("convolutions", rows, note)


if __name__ == "__main__":
    main()
