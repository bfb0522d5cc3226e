import { canonical, formatShape, type Dim } from './dim.js';
import type { DType } from './tensor.js';

/** What is known of a value before it is computed. */
export interface TensorType {
  readonly dtype: DType;
  readonly shape: readonly Dim[];
}

/** The result of a node: a tensor that will exist when the graph runs. */
export interface Value extends TensorType {
  readonly graph: Graph;
  readonly node: Node;
  /** Which of the node's outputs. */
  readonly output: number;
}

export interface Node {
  readonly index: number;
  readonly op: string;
  readonly inputs: readonly Value[];
  readonly attributes: Readonly<Record<string, unknown>>;
  readonly outputs: readonly Value[];
}

/** Nodes `start` up to, not including, `end`. */
export interface Segment {
  readonly start: number;
  readonly end: number;
}

/** The type rules of the ops: what a node yields, or a throw saying why it may not exist. */
export type InferTypes = (
  op: string,
  inputs: readonly TensorType[],
  attributes: Readonly<Record<string, unknown>>,
) => readonly TensorType[];

/** A node that breaks the rules of its op: names the node, the op, and the inputs with dtypes and shapes. */
export class GraphError extends Error {
  constructor(message: string, index: number, op: string, inputs: readonly TensorType[]) {
    const operands = inputs.map((input) => `${input.dtype}${formatShape(input.shape)}`).join(', ');
    super(`node ${index} ${op}(${operands}): ${message}`);
    this.name = 'GraphError';
  }
}

/**
 * A computation as a list of nodes in the order of their making, which is an order in which they can run.
 * Values are immutable; a node is only ever appended.
 */
export class Graph {
  readonly nodes: Node[] = [];
  readonly outputs = new Map<string, Value>();
  /** Parts whose results a gradient computes again instead of keeping them; disjoint, in order. */
  readonly recomputed: Segment[] = [];
  readonly #infer: InferTypes;

  constructor(infer: InferTypes) {
    this.#infer = infer;
  }

  /** Appends a node; throws GraphError when its op refuses the inputs. */
  add(op: string, inputs: readonly Value[], attributes: Readonly<Record<string, unknown>> = {}): readonly Value[] {
    const index = this.nodes.length;
    const foreign = inputs.findIndex((input) => input.graph !== this);
    if (foreign >= 0) throw new GraphError(`input ${foreign} belongs to another graph`, index, op, inputs);
    const types = this.typesOf(index, op, inputs, attributes);
    const outputs: Value[] = [];
    const node: Node = { index, op, inputs, attributes, outputs };
    for (const [output, { dtype, shape }] of types.entries()) {
      outputs.push({ graph: this, node, output, dtype, shape });
    }
    this.nodes.push(node);
    return outputs;
  }

  /** The output types of an op on given inputs, dimensions in canonical form, with the node named in any complaint. */
  typesOf(
    index: number,
    op: string,
    inputs: readonly TensorType[],
    attributes: Readonly<Record<string, unknown>>,
  ): readonly TensorType[] {
    try {
      const types = this.#infer(op, inputs, attributes);
      return types.map(({ dtype, shape }) => ({ dtype, shape: shape.map(canonical) }));
    } catch (error) {
      if (error instanceof GraphError) throw error;
      throw new GraphError(error instanceof Error ? error.message : String(error), index, op, inputs);
    }
  }

  /** Marks what `body` adds as a part that a gradient computes again. */
  recompute<T>(body: () => T): T {
    const start = this.nodes.length;
    const result = body();
    this.recomputed.push({ start, end: this.nodes.length });
    return result;
  }

  /** Names a value as a result of the graph. */
  output(name: string, value: Value): Value {
    if (this.outputs.has(name)) throw new RangeError(`the graph already has an output named '${name}'`);
    this.outputs.set(name, value);
    return value;
  }

  /** A value fed at each run. */
  input(name: string, dtype: DType, shape: readonly Dim[]): Value {
    return this.add('input', [], { name, dtype, shape })[0]!;
  }

  /** A weight: fed from a buffer that outlives the run, or bound to a file when the graph is emitted. */
  parameter(name: string, dtype: DType, shape: readonly Dim[]): Value {
    return this.add('parameter', [], { name, dtype, shape })[0]!;
  }

  /** Nodes that the outputs need, in order. */
  liveNodes(): Node[] {
    const live = new Set<Node>();
    const pending = [...this.outputs.values()].map((value) => value.node);
    for (let node = pending.pop(); node !== undefined; node = pending.pop()) {
      if (live.has(node)) continue;
      live.add(node);
      for (const input of node.inputs) pending.push(input.node);
    }
    return [...live].sort((a, b) => a.index - b.index);
  }
}
