import type { Node, Value } from '../graph/graph.js';
import { scalar, zerosOf } from '../ops/build.js';
import { recordOf } from '../ops/registry.js';
import { sumOf } from './sum-of.js';
import { Recomputation } from './recompute.js';

/**
 * Reverse-mode differentiation: appends to the graph the nodes that compute d loss / d value for each value asked for.
 * One walk from the loss back, in the reverse order of the graph; only what lies between the asked values and the
 * loss is differentiated, so frozen weights cost nothing. Parts that the graph marks as recomputed are computed again
 * instead of being kept.
 *
 * @param loss a scalar of a float dtype
 * @param values inputs, parameters, or anything between
 * @param options.onto what is added to the gradients of some of the values, inputs or parameters: gradients of earlier
 *   batches, in the place of which the sums can be written
 * @returns gradients in the order of `values`, each of its value's type; zeros where the loss does not depend on it
 * @throws Error when the only way to a value leads through an op without a gradient
 */
export function backward(
  loss: Value,
  values: readonly Value[],
  { onto = new Map<Value, Value>() }: { readonly onto?: ReadonlyMap<Value, Value> } = {},
): Value[] {
  if (loss.shape.length !== 0) throw new RangeError(`the loss must be a scalar, got (${loss.shape.join(', ')})`);
  if (!loss.dtype.startsWith('float')) throw new RangeError(`the loss must be of a float dtype, got ${loss.dtype}`);
  const graph = loss.graph;
  const foreign = values.findIndex((value) => value.graph !== graph);
  if (foreign >= 0) throw new RangeError(`value ${foreign} belongs to another graph than the loss`);
  const between = [...onto.keys()].find(({ node }) => node.inputs.length > 0);
  if (between !== undefined)
    throw new RangeError(`node ${between.node.index} passes its gradient on: nothing can be added to it`);
  const wanted = dependents(graph.nodes, values);
  const gradients = new Map<Value, Value>([...onto, [loss, scalar(graph, loss.dtype, 1)]]);

  const segments = [...graph.recomputed];
  let again: Recomputation | undefined;
  const asked = new Set(values);
  /** Gradients asked for that have come up since the last segment. */
  const results: Value[] = [];

  for (let index = loss.node.index; index >= 0; index--) {
    const node = graph.nodes[index]!;
    while (segments.length > 0 && index < segments.at(-1)!.start) {
      segments.pop();
      again = undefined;
    }
    const grad = gradientOfNode(node, gradients, wanted);
    if (grad === undefined) continue;
    const segment = segments.at(-1);
    if (segment !== undefined && index < segment.end) {
      again ??= new Recomputation(graph, segment, [grad, ...results.splice(0)]);
    }
    const seen = (value: Value): Value => again?.of(value) ?? value;
    const { vjp } = recordOf(node.op);
    if (typeof vjp !== 'function') {
      if (node.op === 'stopGradient') continue;
      throw new Error(`node ${index} ${node.op} has no gradient: ${vjp.nonDifferentiable}`);
    }
    const thunks = vjp({
      grad,
      inputs: node.inputs.map(seen),
      outputs: node.outputs.map(seen),
      attributes: node.attributes,
    });
    if (thunks.length !== node.inputs.length) {
      throw new Error(`the gradient of ${node.op} names ${thunks.length} inputs of ${node.inputs.length}`);
    }
    for (const [position, thunk] of thunks.entries()) {
      const input = node.inputs[position]!;
      if (thunk === null || !wanted.has(input)) continue;
      const next = graph.nodes.length;
      const share = thunk();
      const before = gradients.get(input);
      const gradient = before === undefined ? share : sumOf(before, share, share.node.index >= next);
      gradients.set(input, gradient);
      if (asked.has(input)) results.push(gradient);
    }
  }
  return values.map((value) => gradients.get(value) ?? zerosOf(graph, value.dtype, value.shape));
}

/** The gradient of a node's first output, where one has arrived and something before the node wants it. */
function gradientOfNode(
  node: Node,
  gradients: ReadonlyMap<Value, Value>,
  wanted: ReadonlySet<Value>,
): Value | undefined {
  if (!node.inputs.some((input) => wanted.has(input))) return undefined;
  const stray = node.outputs.findIndex((output, position) => position > 0 && gradients.has(output));
  if (stray > 0) {
    throw new Error(
      `node ${node.index} ${node.op} is differentiated through its output ${stray}: only output 0 has a gradient`,
    );
  }
  return gradients.get(node.outputs[0]!);
}

/** Values that depend on the given ones, themselves included; a stopped gradient depends on nothing. */
function dependents(nodes: readonly Node[], values: readonly Value[]): Set<Value> {
  const found = new Set(values);
  for (const node of nodes) {
    if (node.op === 'stopGradient' || !node.inputs.some((input) => found.has(input))) continue;
    for (const output of node.outputs) found.add(output);
  }
  return found;
}
