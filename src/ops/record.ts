import type { Dim } from '../graph/dim.js';
import type { Node, TensorType, Value } from '../graph/graph.js';
import type { DType } from '../graph/tensor.js';

/** ONNX attribute values: a number is an integer unless wrapped as a float. */
export type OnnxAttribute = number | string | readonly number[] | { readonly float: number };

/** An ONNX value of a scan's body, and its type. */
export interface ScanValue extends TensorType {
  readonly name: string;
}

/** What an op writes its ONNX nodes to; implemented by `src/onnx`. */
export interface Emitter {
  /** The execution provider that the model is for: emission may differ, the mathematics may not. */
  readonly device: string;
  /** The ONNX name of a graph value. */
  name(value: Value): string;
  /** Appends an ONNX node and returns the name of its first output; an empty string omits an optional input. */
  node(opType: string, inputs: readonly string[], attributes?: Record<string, OnnxAttribute>, domain?: string): string;
  /** The same with several outputs. */
  nodes(
    count: number,
    opType: string,
    inputs: readonly string[],
    attributes?: Record<string, OnnxAttribute>,
    domain?: string,
  ): string[];
  /**
   * Computes `body` once for each element along the first axis of the inputs and stacks what comes out. The body's nodes
   * may read any value of the graph around it.
   *
   * @param inputs ONNX names, and the type of one element
   * @param body from the elements' names to names and types of what to stack
   */
  scan(inputs: readonly ScanValue[], body: (elements: readonly string[]) => readonly ScanValue[]): string[];
  /**
   * Tells the type of what a node made for the op computes, and gives its name back: for results of the runtime's nodes whose
   * shapes it cannot infer by itself, above all those of reshaping to sizes that are known at run time.
   */
  typed(name: string, type: TensorType): string;
  /** The name of a parameter as its file holds it, where that is in a narrower dtype than the graph's. */
  stored(value: Value): string | undefined;
  /** Whether a parameter is part of the model and has no elements. */
  isEmpty(value: Value): boolean;
  /** Whether anything reads a value: what nothing reads need not be computed. */
  reads(value: Value): boolean;
  /** A small tensor written into the model. */
  constant(dtype: DType, shape: readonly number[], values: Iterable<number>): string;
  /** What several nodes need alike: written by `make` where it is first asked for under `key`, and known from then on. */
  once(key: string, make: () => string): string;
  /** A 1-D int64 tensor holding the dimensions at run time. */
  dims(dims: readonly Dim[]): string;
}

/** Why an op has no gradient. */
export interface NonDifferentiable {
  readonly nonDifferentiable: string;
}

export const nonDifferentiable = (reason: string): NonDifferentiable => ({ nonDifferentiable: reason });

/**
 * The vector-Jacobian product of a node with one output: from d loss/d output, a thunk for each input that makes
 * d loss/d input, or null where the input has no gradient (an index, a mask). Thunks run only where needed.
 */
export type Vjp<A> = (context: {
  readonly grad: Value;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  readonly attributes: A;
}) => readonly ((() => Value) | null)[];

/** All that there is to know of an op, in one place. */
export interface OpRecord<A> {
  /** Output types from input types; throws with the reason when the op cannot take them. */
  infer(inputs: readonly TensorType[], attributes: A): readonly TensorType[];
  /** Writes the op as ONNX nodes and returns the names of its outputs. */
  emit(emitter: Emitter, node: Node, attributes: A): readonly string[];
  /** Positions of inputs that are read as they are: of a parameter there one copy, fed, serves every graph. */
  readonly shared?: readonly number[];
  /** The gradient with respect to the first output. */
  readonly vjp: Vjp<A> | NonDifferentiable;
}

/** Attributes of each op; a name here without a record, or a record without a gradient, does not compile. */
export interface OpAttributes {
  input: { name: string; dtype: DType; shape: readonly Dim[] };
  parameter: { name: string; dtype: DType; shape: readonly Dim[] };
  constant: { dtype: DType; shape: readonly number[]; values: readonly number[] };
  stopGradient: NoAttributes;
  neg: NoAttributes;
  exp: NoAttributes;
  log: NoAttributes;
  sqrt: NoAttributes;
  reciprocal: NoAttributes;
  tanh: NoAttributes;
  sigmoid: NoAttributes;
  erf: NoAttributes;
  sin: NoAttributes;
  cos: NoAttributes;
  silu: NoAttributes;
  gelu: NoAttributes;
  add: NoAttributes;
  sub: NoAttributes;
  mul: NoAttributes;
  div: NoAttributes;
  minimum: NoAttributes;
  maximum: NoAttributes;
  equal: NoAttributes;
  less: NoAttributes;
  and: NoAttributes;
  or: NoAttributes;
  not: NoAttributes;
  where: NoAttributes;
  cast: { to: DType };
  matmul: { transA: boolean; transB: boolean };
  int8Matmul: { adjoint: boolean };
  roundedMatmul: { adjoint: boolean };
  int4Matmul: NoAttributes;
  bytesMatmul: NoAttributes;
  nf4Matmul: { rows: number; columns: number; adjoint: boolean };
  streamedMatmul: { adjoint: boolean; piece: number };
  reduceSum: { axes: readonly number[]; keepDims: boolean };
  reduceMean: { axes: readonly number[]; keepDims: boolean };
  reduceMax: { axes: readonly number[]; keepDims: boolean };
  cumulativeSum: { axis: number; reverse: boolean };
  softmax: NoAttributes;
  logSoftmax: NoAttributes;
  rmsNorm: { epsilon: number };
  layerNorm: { epsilon: number };
  reshape: { shape: readonly Dim[] };
  transpose: { permutation: readonly number[] };
  broadcastTo: { shape: readonly Dim[] };
  concat: { axis: number };
  slice: { axis: number; start: Dim; end: Dim };
  pad: { axis: number; before: Dim; after: Dim };
  gatherRows: NoAttributes;
  rearrangeRows: { holes: 'from' | 'to' };
  scatterAddRows: { rows: Dim };
  gatherElements: NoAttributes;
  scatterAddElements: { size: Dim };
  topK: { count: Dim };
  tokenLogProbs: NoAttributes;
  tokenLogProbsGrad: NoAttributes;
  tokenEntropies: NoAttributes;
  linearLogProbs: { form: 'float' | 'int8' | 'streamed'; chunk: number };
  rotary: NoAttributes;
  iota: { size: Dim };
  dropoutMask: {
    shape: readonly Dim[];
    rowAxis: number | undefined;
    rate: number;
    salt: number;
    dtype: DType;
  };
}

/** An op without attributes. */
export type NoAttributes = Readonly<Record<string, never>>;

export type OpName = keyof OpAttributes;

/** Records of some of the ops. */
export type OpRecords<K extends OpName> = { readonly [P in K]: OpRecord<OpAttributes[P]> };
