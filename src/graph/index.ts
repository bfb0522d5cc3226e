export type { Dim } from './dim.js';
export { Graph, GraphError, type Node, type TensorType, type Value } from './graph.js';
export { type DType, tensor, type Tensor, wrap, zeros } from './tensor.js';
export { verify } from './verify.js';
