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

const feed = (graph: Graph, kind: string, { name, shape }: OptimizedParameter): Value =>
  graph.input(`${kind}/${name}`, 'float32', shape);

/**
 * The global L2 norm of the feeds `gradient/…` as `grad_norm`: finite exactly where every gradient is, as long as no
 * square leaves float32. A graph of its own, so that whether a step is taken can be decided before anything is written.
 */
export function gradNormGraph(parameters: readonly OptimizedParameter[]): Graph {
  const graph = newGraph();
  const gradients = parameters.map((parameter) => feed(graph, 'gradient', parameter));
  graph.output('grad_norm', sqrt(gradients.map((gradient) => reduceSum(mul(gradient, gradient))).reduce(add)));
  return graph;
}

/**
 * One optimizer step as a graph: feeds `weight/…`, `first_moment/…`, `second_moment/…`, `gradient/…` of each parameter,
 * the scalars, and where gradients are clipped their `grad_norm`; outputs `new_…` of the first three. Each `new_` value
 * reads the elements of its own old one only, and nothing reads an old one after its new one is written, so old and
 * new may share a buffer.
 */
export function adamwGraph(parameters: readonly OptimizedParameter[], settings: AdamWSettings): Graph {
  const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, maxGradNorm } = settings;
  const graph = newGraph();
  const scalar = (name: keyof StepScalars): Value => graph.input(name, 'float32', []);
  const [stepSize, correction, keep] = [scalar('step_size'), scalar('correction'), scalar('keep')];
  // As torch.nn.utils.clip_grad_norm_: min(1, max / (norm + 1e-6))
  const scale =
    maxGradNorm === undefined
      ? undefined
      : minimum(div(maxGradNorm, add(graph.input('grad_norm', 'float32', []), 1e-6)), 1);

  for (const parameter of parameters) {
    const raw = feed(graph, 'gradient', parameter);
    const gradient = scale === undefined ? raw : mul(raw, scale);
    const first = add(mul(feed(graph, 'first_moment', parameter), beta1), mul(gradient, 1 - beta1));
    const second = add(mul(feed(graph, 'second_moment', parameter), beta2), mul(mul(gradient, gradient), 1 - beta2));
    const update = mul(div(first, add(div(sqrt(second), correction), epsilon)), stepSize);
    const weight = feed(graph, 'weight', parameter);
    const decayed = parameter.decay && settings.weightDecay !== 0 ? mul(weight, keep) : weight;
    graph.output(`new_first_moment/${parameter.name}`, first);
    graph.output(`new_second_moment/${parameter.name}`, second);
    graph.output(`new_weight/${parameter.name}`, sub(decayed, update));
  }
  return graph;
}
