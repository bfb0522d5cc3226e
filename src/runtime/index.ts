export { type DeviceTensor, type Program, Runtime, type RuntimeOptions, type StoredTensor } from './runtime.js';
