export * from './build.js';
export { type NonDifferentiable, nonDifferentiable, type OpName, type OpRecord, type Vjp } from './record.js';
export { newGraph, ops, recordOf } from './registry.js';
