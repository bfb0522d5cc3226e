import type { Graph, Value } from '../graph/graph.js';
import { add, div, minimum, mul, reduceSum, sqrt, sub } from '../ops/build.js';
import { newGraph } from '../ops/registry.js';

/** Decoupled weight decay (Loshchilov and Hutter, 2019, https://arxiv.org/abs/1711.05101), with PyTorch's defaults. */
export interface AdamWSettings {
  readonly weightDecay: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly epsilon?: number;
  /** Global L2 norm to which gradients are clipped before the update; none: not clipped. */
  readonly maxGradNorm?: number;
}

export interface OptimizedParameter {
  readonly name: string;
  readonly shape: readonly number[];
  /** Whether weight decay applies; by convention not to biases and norm weights. */
  readonly decay: boolean;
}

/** The scalars of one step, as the graph takes them; computed in double precision. */
export interface StepScalars {
  /** lr / (1 − β₁ᵗ) */
  readonly step_size: number;
  /** √(1 − β₂ᵗ) */
  readonly correction: number;
  /** 1 − lr · weight decay */
  readonly keep: number;
}

export function stepScalars(settings: AdamWSettings, learningRate: number, step: number): StepScalars {
  const { beta1 = 0.9, beta2 = 0.999, weightDecay } = settings;
  return {
    step_size: learningRate / (1 - beta1 ** step),
    correction: Math.sqrt(1 - beta2 ** step),
    keep: 1 - learningRate * weightDecay,
  };
}

/**
 * One optimizer step as a graph: feeds `weight/…`, `first_moment/…`, `second_moment/…`, `gradient/…` of each parameter
 * and the scalars; outputs `new_…` of the first three and `grad_norm`, the norm before clipping. Each `new_` value
 * reads the elements of its own old one only, and nothing reads an old one after its new one is written, so old and
 * new may share a buffer.
 */
export function adamwGraph(parameters: readonly OptimizedParameter[], settings: AdamWSettings): Graph {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, maxGradNorm } = settings;
  const graph = newGraph();
  const scalar = (name: keyof StepScalars): Value => graph.input(name, 'float32', []);
  const [stepSize, correction, keep] = [scalar('step_size'), scalar('correction'), scalar('keep')];
  const feed = (kind: string, { name, shape }: OptimizedParameter): Value =>
    graph.input(`${kind}/${name}`, 'float32', shape);

  const gradients = parameters.map((parameter) => feed('gradient', parameter));
  const norm = sqrt(gradients.map((gradient) => reduceSum(mul(gradient, gradient))).reduce(add));
  graph.output('grad_norm', norm);
  // As torch.nn.utils.clip_grad_norm_: min(1, max / (norm + 1e-6))
  const scale = maxGradNorm === undefined ? undefined : minimum(div(maxGradNorm, add(norm, 1e-6)), 1);

  for (const [i, parameter] of parameters.entries()) {
    const gradient = scale === undefined ? gradients[i]! : mul(gradients[i]!, scale);
    const first = add(mul(feed('first_moment', parameter), beta1), mul(gradient, 1 - beta1));
    const second = add(mul(feed('second_moment', parameter), beta2), mul(mul(gradient, gradient), 1 - beta2));
    const update = mul(div(first, add(div(sqrt(second), correction), epsilon)), stepSize);
    const weight = feed('weight', parameter);
    const decayed = parameter.decay && settings.weightDecay !== 0 ? mul(weight, keep) : weight;
    graph.output(`new_first_moment/${parameter.name}`, first);
    graph.output(`new_second_moment/${parameter.name}`, second);
    graph.output(`new_weight/${parameter.name}`, sub(decayed, update));
  }
  return graph;
}

/** total + fresh for each parameter, for gradients of several micro-batches; in place like the update. */
export function accumulationGraph(parameters: readonly OptimizedParameter[]): Graph {
  const graph = newGraph();
  for (const { name, shape } of parameters) {
    const total = graph.input(`total/${name}`, 'float32', shape);
    graph.output(`new_total/${name}`, add(total, graph.input(`fresh/${name}`, 'float32', shape)));
  }
  return graph;
}
