import { termsOf, type Dim } from '../graph/dim.js';
import { GraphError, type Graph, type Node, type TensorType, type Value } from '../graph/graph.js';
import { tensor, type DType } from '../graph/tensor.js';
import { verify } from '../graph/verify.js';
import type { Emitter, OnnxAttribute, ScanValue } from '../ops/record.js';
import { recordOf } from '../ops/registry.js';
import { attributeTypes, encodeModel, onnxTypes } from './schema.js';

/** A parameter that is part of the model: its bytes given, or left in a file to be read by the runtime itself. */
export interface BoundTensor {
  readonly data: Uint8Array | { readonly location: string; readonly offset: number; readonly length: number };
  /** How the bytes store it; float16 and bfloat16 are widened in the graph. */
  readonly dtype: 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32';
  readonly shape: readonly number[];
}

export interface EmitOptions {
  readonly device: string;
  /** Parameters that are part of the model; all others are its inputs. */
  readonly bound?: ReadonlyMap<string, BoundTensor>;
  /** Whether the model has, before all its outputs, the one that is no tensor: see `NO_TENSOR`. */
  readonly noTensor?: boolean;
}

/**
 * An output that is no tensor but an empty sequence. After a run the runtime's binding copies every output that was asked
 * for, also those that were written where the caller wanted them; at this one, the first, it fails.
 */
export const NO_TENSOR = 'no tensor';

/** A serialised model and what it takes and gives. */
export interface OnnxModel {
  readonly bytes: Uint8Array;
  readonly inputs: ReadonlyMap<string, TensorType>;
  readonly outputs: ReadonlyMap<string, TensorType>;
}

const OPSET = 21;
const IR_VERSION = 10;
const EXTERNAL = 1;

/** Verifies a graph and writes its live part as an ONNX model. */
export function emit(graph: Graph, options: EmitOptions): OnnxModel {
  verify(graph);
  return new ModelEmitter(graph, options).model();
}

interface NodeProto {
  opType: string;
  domain: string;
  input: string[];
  output: string[];
  name: string;
  attribute: AttributeProto[];
}

interface AttributeProto {
  readonly name: string;
  readonly g?: { readonly node: NodeProto[] };
}

class ModelEmitter implements Emitter {
  readonly device: string;
  readonly #live: readonly Node[];
  readonly #outputs: ReadonlyMap<string, Value>;
  readonly #bound: ReadonlyMap<string, BoundTensor>;
  readonly #noTensor: boolean;
  readonly #names = new Map<Value, string>();
  /** Types of what nodes compute between graph values, where ops know them. */
  readonly #types = new Map<string, TensorType>();
  #nodes: NodeProto[] = [];
  readonly #initializers: unknown[] = [];
  readonly #inputs = new Map<string, TensorType>();
  /** Parameters that their files hold in a narrower dtype, by the name under which they are there. */
  readonly #stored = new Map<Value, string>();
  readonly #widened: NodeProto[] = [];
  #cache = new Map<string, string>();
  readonly #read: ReadonlySet<Value>;
  #named = 0;

  constructor(graph: Graph, { device, bound, noTensor }: EmitOptions) {
    this.device = device;
    this.#live = graph.liveNodes();
    this.#outputs = graph.outputs;
    this.#read = new Set([...this.#live.flatMap(({ inputs }) => inputs), ...graph.outputs.values()]);
    this.#noTensor = noTensor ?? false;
    this.#bound = bound ?? new Map<string, BoundTensor>();
  }

  model(): OnnxModel {
    for (const node of this.#live) {
      if (isSource(node)) this.#declare(node.outputs[0]!, String(node.attributes['name']));
    }
    // Inputs and parameters are there already; one that its file holds narrower is widened where something reads it whole.
    for (const node of this.#live) if (!isSource(node)) this.#emit(node);
    this.#nameOutputs();
    const sequence = this.#noTensor ? [emptySequence(NO_TENSOR)] : [];
    const bytes = encodeModel({
      irVersion: IR_VERSION,
      producerName: 'duanzi',
      opsetImport: [
        { domain: '', version: OPSET },
        { domain: 'com.microsoft', version: 1 },
      ],
      graph: {
        name: 'duanzi',
        node: [...sequence.map(({ node }) => node), ...this.#widened, ...unreadLast(this.#nodes)],
        initializer: this.#initializers,
        input: [...this.#inputs].map(valueInfo),
        output: [...sequence.map(({ info }) => info), ...[...this.#outputs].map(valueInfo)],
        valueInfo: [...this.#intermediates()].map(valueInfo),
      },
    });
    return { bytes, inputs: this.#inputs, outputs: this.#outputs };
  }

  /**
   * Gives what nodes compute the names of the outputs, so that it is written where they are wanted. What is not computed,
   * or is an output already, becomes a copy: one that others read, too, the runtime would make itself, of all of it.
   */
  #nameOutputs(): void {
    const computed = new Set(this.#nodes.flatMap(({ output }) => output));
    const names = new Map<string, string>();
    const copies: [from: string, to: string][] = [];
    for (const [output, value] of this.#outputs) {
      const name = this.name(value);
      if (computed.has(name) && !names.has(name)) names.set(name, output);
      else copies.push([name, output]);
    }
    rename(this.#nodes, names);
    for (const [value, name] of this.#names) this.#names.set(value, names.get(name) ?? name);
    for (const [from, to] of copies) this.#write(['Identity', [names.get(from) ?? from], {}, ''], [to]);
  }

  /**
   * What nodes compute, by its name here. The runtime infers shapes itself, but not through those that are computed at
   * run time; where it cannot tell that two are equal it takes fresh memory instead of writing in place.
   */
  #intermediates(): Map<string, TensorType> {
    const computed = new Set(this.#nodes.flatMap(({ output }) => output));
    const types = new Map([...this.#types].filter(([name]) => computed.has(name)));
    for (const [value, name] of this.#names) if (computed.has(name)) types.set(name, value);
    for (const name of this.#outputs.keys()) types.delete(name);
    return types;
  }

  #emit(node: Node): void {
    try {
      const names = recordOf(node.op).emit(this, node, node.attributes);
      for (const [position, name] of names.entries()) this.#names.set(node.outputs[position]!, name);
    } catch (error) {
      throw new GraphError(error instanceof Error ? error.message : String(error), node.index, node.op, node.inputs);
    }
  }

  name(value: Value): string {
    const name = this.#names.get(value) ?? this.#widen(value);
    if (name === undefined) throw new Error(`node ${value.node.index} ${value.node.op} is read before it is emitted`);
    return name;
  }

  stored(value: Value): string | undefined {
    return this.#stored.get(value);
  }

  /** The whole of a parameter in the dtype of the graph, made before everything else. */
  #widen(value: Value): string | undefined {
    const stored = this.#stored.get(value);
    if (stored === undefined) return undefined;
    const here = this.#nodes;
    this.#nodes = this.#widened;
    const name = this.node('Cast', [stored], { to: onnxTypes[value.dtype] });
    this.#nodes = here;
    this.#names.set(value, name);
    return name;
  }

  node(opType: string, inputs: readonly string[], attributes: Record<string, OnnxAttribute> = {}, domain = ''): string {
    return this.nodes(1, opType, inputs, attributes, domain)[0]!;
  }

  nodes(
    count: number,
    opType: string,
    inputs: readonly string[],
    attributes: Record<string, OnnxAttribute> = {},
    domain = '',
  ): string[] {
    const base = `${opType}_${this.#named++}`;
    const outputs = Array.from({ length: count }, (_, position) => (position === 0 ? base : `${base}:${position}`));
    this.#write([opType, inputs, attributes, domain], outputs);
    return outputs;
  }

  typed(name: string, type: TensorType): string {
    this.#types.set(name, type);
    return name;
  }

  scan(inputs: readonly ScanValue[], body: (elements: readonly string[]) => readonly ScanValue[]): string[] {
    const around = { nodes: this.#nodes, cache: this.#cache };
    // What the body makes is not there outside of it.
    [this.#nodes, this.#cache] = [[], new Map(around.cache)];
    const elements = inputs.map(({ dtype, shape }): [string, TensorType] => [
      `element_${this.#named++}`,
      { dtype, shape },
    ]);
    const stacked = body(elements.map(([name]) => name)).map((value): [string, TensorType] => [
      this.node('Identity', [value.name]),
      value,
    ]);
    const graph = {
      name: `body_${this.#named++}`,
      node: this.#nodes,
      input: elements.map(valueInfo),
      output: stacked.map(valueInfo),
    };
    [this.#nodes, this.#cache] = [around.nodes, around.cache];
    const outputs = stacked.map(([name]) => `${name}_stacked`);
    const names = inputs.map(({ name }) => name);
    const attribute = [
      attributeProto('num_scan_inputs', inputs.length),
      { name: 'body', g: graph, type: attributeTypes.graph },
    ];
    this.#nodes.push({ opType: 'Scan', domain: '', input: names, output: [...outputs], name: outputs[0]!, attribute });
    return outputs;
  }

  isEmpty(value: Value): boolean {
    const bound = this.#bound.get(String(value.node.attributes['name']));
    return value.node.op === 'parameter' && bound?.shape.includes(0) === true;
  }

  reads(value: Value): boolean {
    return this.#read.has(value);
  }

  once(key: string, make: () => string): string {
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    const name = make();
    this.#cache.set(key, name);
    return name;
  }

  constant(dtype: DType, shape: readonly number[], values: Iterable<number>): string {
    const { data } = tensor(dtype, shape, values);
    return this.once(`constant ${dtype} ${shape.join('x')} ${data.join(' ')}`, () => {
      const name = `constant_${this.#initializers.length}`;
      const rawData = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      this.#initializers.push({ name, dims: shape, dataType: onnxTypes[dtype], rawData });
      return name;
    });
  }

  dims(dims: readonly Dim[]): string {
    if (dims.every((dim) => typeof dim === 'number')) return this.constant('int64', [dims.length], dims);
    return this.once(`dims ${dims.join(' ')}`, () => {
      const parts = dims.map((dim) => this.#dim(dim));
      return parts.length === 1 ? parts[0]! : this.node('Concat', parts, { axis: 0 });
    });
  }

  /** One dimension as an int64 tensor of shape (1). */
  #dim(dim: Dim): string {
    if (typeof dim === 'number') return this.constant('int64', [1], [dim]);
    return this.once(`dim ${dim}`, () =>
      termsOf(dim)
        .map(({ coefficient, symbols }) => {
          const product = symbols.map((symbol) => this.#symbol(symbol));
          if (coefficient !== 1 || product.length === 0) product.push(this.constant('int64', [1], [coefficient]));
          return product.reduce((a, b) => this.node('Mul', [a, b]));
        })
        .reduce((a, b) => this.node('Add', [a, b])),
    );
  }

  /** A symbol's value, from the shape of an input that has it as a dimension. */
  #symbol(symbol: string): string {
    return this.once(`dim ${symbol}`, () => {
      for (const [name, { shape }] of this.#inputs) {
        const axis = shape.indexOf(symbol);
        if (axis >= 0) return this.node('Shape', [name], { start: axis, end: axis + 1 });
      }
      throw new Error(`the symbol '${symbol}' is a dimension of no input`);
    });
  }

  #declare(value: Value, name: string): void {
    const bound = this.#bound.get(name);
    if (bound === undefined) {
      this.#inputs.set(name, value);
      this.#names.set(value, name);
      return;
    }
    const fits = (size: Dim, axis: number): boolean => typeof size === 'string' || size === bound.shape[axis];
    if (bound.shape.length !== value.shape.length || !value.shape.every(fits)) {
      throw new Error(
        `the file holds '${name}' as (${bound.shape.join(', ')}) where the graph has (${value.shape.join(', ')})`,
      );
    }
    const { dtype, shape, data } = bound;
    this.#initializers.push({ name, dims: shape, dataType: onnxTypes[dtype], ...tensorData(data) });
    if (dtype === value.dtype) this.#names.set(value, name);
    else this.#stored.set(value, name);
  }

  #write(
    [opType, inputs, attributes, domain]: [string, readonly string[], Record<string, OnnxAttribute>, string],
    output: string[],
  ): void {
    this.#nodes.push(nodeProto([opType, inputs, attributes, domain], output));
  }
}

/** Renames values wherever they are made and read, in the bodies of nodes too. */
function rename(nodes: readonly NodeProto[], names: ReadonlyMap<string, string>): void {
  const renamed = (name: string): string => names.get(name) ?? name;
  for (const node of nodes) {
    node.input = node.input.map(renamed);
    node.output = node.output.map(renamed);
    for (const { g: body } of node.attribute) if (body !== undefined) rename(body.node, names);
  }
}

const isSource = ({ op }: Node): boolean => op === 'input' || op === 'parameter';

/**
 * The nodes with those that no other reads at the end, the last one first: the runtime begins with the last of these,
 * computes what that needs, and goes on with the one before it. In the order of the graph it would leave the gradients
 * of weights for after everything else, and all that they need in memory until then.
 */
function unreadLast(nodes: readonly NodeProto[]): NodeProto[] {
  const read = new Set(readBy(nodes));
  const isRead = ({ output }: NodeProto): boolean => output.some((name) => read.has(name));
  return [...nodes.filter(isRead), ...nodes.filter((node) => !isRead(node)).toReversed()];
}

/** Names of all that nodes read, in their bodies too. */
const readBy = (nodes: readonly NodeProto[]): string[] =>
  nodes.flatMap(({ input, attribute }) => [...input, ...attribute.flatMap(({ g: body }) => readBy(body?.node ?? []))]);

function emptySequence(name: string): { node: NodeProto; info: Record<string, unknown> } {
  const elemType = { tensorType: { elemType: onnxTypes.float32 } };
  return {
    node: nodeProto(['SequenceEmpty', [], {}, ''], [name]),
    info: { name, type: { sequenceType: { elemType } } },
  };
}

function nodeProto(
  [opType, inputs, attributes, domain]: [string, readonly string[], Record<string, OnnxAttribute>, string],
  output: string[],
): NodeProto {
  const attribute = Object.entries(attributes).map(([name, value]) => attributeProto(name, value));
  return { opType, domain, input: [...inputs], output, name: output[0]!, attribute };
}

function tensorData(data: BoundTensor['data']): Record<string, unknown> {
  if (data instanceof Uint8Array) return { rawData: data };
  const externalData = Object.entries(data).map(([key, value]) => ({ key, value: String(value) }));
  return { dataLocation: EXTERNAL, externalData };
}

function attributeProto(name: string, value: OnnxAttribute): AttributeProto & Record<string, unknown> {
  if (typeof value === 'number') return { name, i: value, type: attributeTypes.int };
  if (typeof value === 'string') return { name, s: new TextEncoder().encode(value), type: attributeTypes.string };
  if ('float' in value) return { name, f: value.float, type: attributeTypes.float };
  return { name, ints: value, type: attributeTypes.ints };
}

function valueInfo([name, { dtype, shape }]: [string, TensorType]): Record<string, unknown> {
  const dim = shape.map((size) => (typeof size === 'number' ? { dimValue: size } : { dimParam: size }));
  return { name, type: { tensorType: { elemType: onnxTypes[dtype], shape: { dim } } } };
}
