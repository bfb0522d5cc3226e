import type { Graph, Node, Value } from '../graph/graph.js';
import { formatShape } from '../graph/dim.js';
import { tensor, type Tensor } from '../graph/tensor.js';
import { mul, reduceSum } from '../ops/build.js';
import type { DeviceTensor, Runtime, StoredTensor } from '../runtime/runtime.js';

/** Fed as 0: a constant could be folded away. */
const ZERO = 'probe/zero';

/**
 * Runs a graph once more with a probe beside every float value, Σ 0·x, which is 0 exactly where all of x is finite, and
 * describes the first value that is not: what it is, and the nearest weight before it. Undefined where all are finite.
 * The graph gains outputs and is of no other use afterwards.
 */
export async function firstNonFinite(
  runtime: Runtime,
  graph: Graph,
  weights: ReadonlyMap<string, StoredTensor>,
  feeds: Readonly<Record<string, Tensor | DeviceTensor>>,
): Promise<string | undefined> {
  const zero = graph.input(ZERO, 'float32', []);
  const values = graph
    .liveNodes()
    .filter(({ op }) => op !== 'constant')
    .flatMap(({ outputs }) => outputs)
    .filter(({ dtype }) => dtype === 'float32');
  graph.outputs.clear();
  for (const [i, value] of values.entries()) graph.output(String(i), reduceSum(mul(value, zero)));
  const program = await runtime.compile(graph, weights);
  try {
    const known = Object.fromEntries(Object.entries(feeds).filter(([name]) => program.inputs.has(name)));
    const probes = await program.run({ ...known, [ZERO]: tensor('float32', [], [0]) });
    const first = values.find((_, i) => Number(probes[String(i)]!.data[0]) !== 0);
    return first === undefined ? undefined : describe(first);
  } finally {
    await program.dispose();
  }
}

/** `node 57 matmul (B, T, 64), after the weight model.layers.0.mlp.down_proj.weight`. */
function describe({ node, shape }: Value): string {
  if (node.op === 'parameter') return `the weight ${nameOf(node)}`;
  if (node.op === 'input') return `the feed ${nameOf(node)}`;
  const weight = nearestWeight(node);
  return `node ${node.index} ${node.op} ${formatShape(shape)}${weight === undefined ? '' : `, after the weight ${weight}`}`;
}

const nameOf = (node: Node): string => String(node.attributes['name']);

/** The weight fewest nodes before a node. */
function nearestWeight(from: Node): string | undefined {
  const seen = new Set<Node>([from]);
  // A set is walked in the order of insertion, also over what is added on the way: breadth first.
  for (const node of seen) {
    if (node.op === 'parameter') return nameOf(node);
    for (const input of node.inputs) seen.add(input.node);
  }
  return undefined;
}
