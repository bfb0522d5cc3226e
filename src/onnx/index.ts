export { type BoundTensor, emit, type EmitOptions, type OnnxModel } from './emit.js';
