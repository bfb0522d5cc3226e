import type { Graph, Node, Segment, Value } from '../graph/graph.js';
import { sizeOf } from '../graph/dim.js';
import { cast, concat, reshape, slice } from '../ops/build.js';

/** What a graph holds anyway: computing it again saves nothing. */
const KEPT = new Set(['input', 'parameter', 'constant']);

/**
 * Computes the values of a segment again, from what entered it, once a gradient has come back to its end (gradient
 * checkpointing: Chen et al. 2016, https://arxiv.org/abs/1604.06174). Only what is asked for runs.
 *
 * The runtime merges nodes that are alike, which would bring the first results back and keep them alive. So what enters
 * is made to depend on that gradient: nothing of it, an empty slice, is appended. Nor does the runtime run nodes in the
 * order of the graph: results that lead nowhere further it likes to leave for last, with all that they need. So what
 * enters depends likewise on the results of the segment before.
 */
export class Recomputation {
  readonly #values = new Map<Value, Value>();
  #nothing: Value | undefined;

  constructor(
    private readonly graph: Graph,
    private readonly segment: Segment,
    /** What has to be there before anything is computed again, not none. */
    private readonly after: readonly Value[],
  ) {}

  /** The value computed again, where it belongs to the segment; as it enters the segment elsewhere. */
  of(value: Value): Value {
    const known = this.#values.get(value);
    if (known !== undefined) return known;
    // Nodes are in an order in which they can run, so a walk along the segment needs no recursion.
    for (let index = this.segment.start; index <= Math.min(value.node.index, this.segment.end - 1); index++) {
      this.#repeat(this.graph.nodes[index]!);
    }
    return this.#values.get(value) ?? this.#enter(value);
  }

  #repeat(node: Node): void {
    if (this.#values.has(node.outputs[0]!)) return;
    const again = KEPT.has(node.op)
      ? node.outputs
      : this.graph.add(
          node.op,
          node.inputs.map((input) => this.#values.get(input) ?? this.#enter(input)),
          node.attributes,
        );
    for (const [position, output] of node.outputs.entries()) this.#values.set(output, again[position]!);
  }

  #enter(value: Value): Value {
    const entered = value.node.op === 'parameter' || value.node.op === 'constant' ? value : this.#delayed(value);
    this.#values.set(value, entered);
    return entered;
  }

  /** The same tensor, but not before what has to be there. */
  #delayed(value: Value): Value {
    const flat = (x: Value): Value => reshape(x, [sizeOf(x.shape)]);
    this.#nothing ??= concat(
      this.after.map((each) => slice(flat(each), 0, 0, 0)),
      0,
    );
    return reshape(concat([flat(value), cast(this.#nothing, value.dtype)], 0), value.shape);
  }
}
